"""Load a pipeline of diffusers as a spec describes it: its class, and what replaces or adds to its parts.

`check_pipeline` says what is wrong with a spec from configs alone, before weights are read or fetched.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch

from engine.devices import pick_device
from engine.errors import BlindspotError
from engine.hub import loading_options, variant_of
from engine.pipelines.spec import PipelineSpec

Condition = Literal["prompt", "class_labels", ""]
"""The argument of a pipeline that says what to draw; none of one that draws what it likes."""
DENOISERS = ("unet", "transformer")
"""Names of the part of a pipeline that `unet` replaces."""
SHAPES = ("in_channels", "out_channels", "cross_attention_dim", "joint_attention_dim", "caption_channels")
"""Settings of a denoiser that decide with which other parts it works."""
_REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def load_pipeline(source: PipelineSpec) -> Any:
    """The pipeline, ready to draw, without a safety checker: a blacked-out image is not what the model made.

    Raises
    ------
    BlindspotError
        If it or an addition cannot be loaded, or the scheduler is not one of diffusers' or does not fit.
    """
    kind = pipeline_class(source)
    # Said even for float32: a text encoder stored in half precision would else stay so beside a float32 UNet.
    options: dict[str, Any] = {"torch_dtype": getattr(torch, source.dtype)}
    if "safety_checker" in inspect.signature(kind.__init__).parameters:
        options["safety_checker"] = None
    if source.scheduler:
        options["scheduler"] = replaced_scheduler(_own_scheduler(source), source.scheduler, kind)
    if source.unet:
        name, model, place = _denoiser(source, kind)
        options[name] = _tried(lambda: model.from_pretrained(**place, torch_dtype=options["torch_dtype"]), source.unet)
    if _is_file(source.pipeline):
        given = {"config": source.config} if source.config else {}
        pipeline = _tried(lambda: kind.from_single_file(source.pipeline, **given, **options), source.pipeline)
    else:
        loading = loading_options(source.pipeline, source.revision)
        loading |= {"variant": source.variant} if source.variant else {}
        pipeline = _tried(
            lambda: kind.from_pretrained(source.pipeline, revision=source.revision, **options, **loading),
            source.pipeline,
        )
    if getattr(pipeline, "safety_checker", None) is not None:
        pipeline.safety_checker = None
    _add(pipeline, source)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(pick_device(source.device))


def _tried(load: Any, ref: str) -> Any:
    """What `load` returns; whatever it says of a folder or id that does not hold what it should, in a sentence."""
    try:
        return load()
    except Exception as error:  # of diffusers, transformers, safetensors, peft and the hub
        raise _unloadable(ref, error) from error


def _unloadable(ref: str, error: Exception) -> BlindspotError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return BlindspotError(
        f"The pipeline {ref} cannot be loaded ({reason}); give a folder in diffusers' format or a Hugging Face id."
    )


def _add(pipeline: Any, source: PipelineSpec) -> None:
    """Load LoRA adapters and learned words."""
    for number, one in enumerate(source.lora):
        name = f"lora-{number}"
        _tried(lambda: pipeline.load_lora_weights(one.id, weight_name=one.file, adapter_name=name), one.id)  # noqa: B023
        if name not in {each for found in pipeline.get_list_adapters().values() for each in found}:
            raise BlindspotError(
                f"{one.id} holds no LoRA of a {type(pipeline).__name__}: give one made for this model."
            )
    if source.lora:
        names = [f"lora-{number}" for number in range(len(source.lora))]
        pipeline.set_adapters(names, [one.scale for one in source.lora])
    for word in source.textual_inversion:
        options = {"token": word.token, "weight_name": word.file}
        _tried(lambda: pipeline.load_textual_inversion(word.id, **options), word.id)  # noqa: B023


def check_pipeline(source: PipelineSpec) -> None:
    """Raise `BlindspotError` for what configs alone show to be wrong; of an id they are fetched, but no weights.

    The class, how it is told what to draw, the arguments of its call, what replaces its scheduler and its denoiser, and
    the packages that these need.
    """
    kind = pipeline_class(source)
    condition_of(source)
    accepted = inspect.signature(kind.__call__).parameters
    said = [name for name in ("height", "width", "negative_prompt") if getattr(source, name) is not None]
    for name in (*said, *source.call):
        if name not in accepted:
            allowed = [known for known in list(accepted)[1:] if known not in PipelineSpec.model_fields]
            raise BlindspotError(f"A {kind.__name__} takes no {name}{_close(name, allowed)}.")
    for name, method in (("lora", "load_lora_weights"), ("textual_inversion", "load_textual_inversion")):
        if getattr(source, name) and not hasattr(kind, method):
            raise BlindspotError(f"A {kind.__name__} takes no {name}: leave it out.")
    if source.lora:
        _require("peft", "A LoRA adapter")
    if _is_file(source.pipeline) and not hasattr(kind, "from_single_file"):
        raise BlindspotError(f"A {kind.__name__} is not loaded from a single file: give a folder in diffusers' format.")
    if source.scheduler:
        replaced_scheduler(_own_scheduler(source), source.scheduler, kind)
    if source.unet:
        _denoiser(source, kind)


def pipeline_class(source: PipelineSpec) -> Any:
    """The class of diffusers that draws: the one named, or the text-to-image class of the family of the model's own.

    Raises
    ------
    BlindspotError
        If the model cannot be found, or diffusers has no such class.
    """
    quieten()
    import diffusers
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING, _get_task_class

    name = source.pipeline_class
    if name:
        names = [known for known in dir(diffusers) if known.endswith("Pipeline")]
        if name not in names:
            raise BlindspotError(f"diffusers has no pipeline called {name}{_close(name, names)}.")
        return installed(getattr(diffusers, name))
    name = str(model_index(source).get("_class_name"))
    found = _get_task_class(AUTO_TEXT2IMAGE_PIPELINES_MAPPING, name, throw_error_if_not_exist=False)
    found = found or getattr(diffusers, name, None)
    if found is None:
        raise BlindspotError(
            f"The pipeline {source.pipeline} is a {name}, which diffusers {diffusers.__version__} does not have: "
            "install another version, or name one of its classes as pipeline_class."
        )
    return installed(found)


def model_index(source: PipelineSpec) -> Mapping[str, Any]:
    """What the model_index.json of a pipeline says; of a single file, that of its `config`."""
    from diffusers import DiffusionPipeline

    place, revision = _configs(source)
    return _tried(lambda: DiffusionPipeline.load_config(place, revision=revision), source.pipeline)


def _configs(source: PipelineSpec) -> tuple[str, str | None]:
    """The folder or id where the configs of a pipeline are, and its revision."""
    if not _is_file(source.pipeline):
        return source.pipeline, source.revision
    if source.config:
        return source.config, None
    from diffusers.loaders.single_file_utils import fetch_diffusers_config, load_single_file_checkpoint

    found = _tried(lambda: fetch_diffusers_config(load_single_file_checkpoint(source.pipeline)), source.pipeline)
    return found["pretrained_model_name_or_path"], None


def _is_file(ref: str) -> bool:
    return Path(ref).is_file()


def condition_of(pipeline: Any) -> Condition:
    """How a pipeline, or the one that a spec describes, is told what to draw.

    Raises
    ------
    BlindspotError
        If it needs something that captions do not give, or the spec's cannot be found.
    """
    kind = pipeline_class(pipeline) if isinstance(pipeline, PipelineSpec) else type(pipeline)
    parameters = inspect.signature(kind.__call__).parameters
    if "image_embeds" in parameters and parameters["image_embeds"].default is inspect.Parameter.empty:
        raise cannot_draw(kind, "it needs image embeddings, which captions are not")
    if "prompt" in parameters:
        return "prompt"
    needed = [name for name, one in list(parameters.items())[1:] if one.default is one.empty and one.kind not in _REST]
    if needed == ["class_labels"]:
        return "class_labels"
    if needed or "batch_size" not in parameters:
        raise cannot_draw(kind, f"it needs {', '.join(needed) or 'other arguments'}, which captions are not")
    if any("image" in name for name in parameters):
        raise cannot_draw(kind, "it needs an image")
    return ""


def cannot_draw(pipeline: Any, reason: str) -> BlindspotError:
    """The error of a pipeline, or a class of them, that cannot be used, and why."""
    name = (pipeline if isinstance(pipeline, type) else type(pipeline)).__name__
    return BlindspotError(
        f"A {name} cannot draw images from captions as models.* asks ({reason}); choose a text-to-image pipeline, or "
        "draw the images yourself and give their folder."
    )


def _denoiser(source: PipelineSpec, kind: Any) -> tuple[str, Any, dict[str, Any]]:
    """What replaces the pipeline's own denoiser: the part's name, its class, and where it is loaded from.

    Raises
    ------
    BlindspotError
        If there is none, or it does not fit the pipeline's other parts.
    """
    import diffusers

    ref, own, parts = str(source.unet), model_index(source), inspect.signature(kind.__init__).parameters
    name = next((part for part in DENOISERS if part in parts), None)
    if name is None:
        raise BlindspotError(f"A {kind.__name__} has no UNet or transformer that could be replaced: leave out unet.")
    for place in ({"subfolder": name}, {}):
        try:
            config = _config_of(ref, **place)
            break
        except OSError as error:
            reason = error
    else:
        raise _unloadable(ref, reason)
    model, wanted = config.get("_class_name"), (own.get(name) or (None, None))[1]
    if model != wanted:
        raise BlindspotError(
            f"unet is a {model}, but the {name} of {source.pipeline} is a {wanted}: give one of these."
        )
    place_of, revision = _configs(source)
    replaced = _tried(lambda: _config_of(place_of, subfolder=name, revision=revision), source.pipeline)
    for shape in SHAPES:
        if config.get(shape) != replaced.get(shape):
            raise BlindspotError(
                f"unet {ref} has {shape} {config.get(shape)}, but the {name} of {source.pipeline} has "
                f"{replaced.get(shape)}: give one made for this model."
            )
    folder = Path(ref, place.get("subfolder", ""))
    loading = {"variant": variant_of(folder if folder.is_dir() else ref)}
    return name, getattr(diffusers, str(model)), {"pretrained_model_name_or_path": ref, **place, **loading}


def _config_of(ref: str, **place: Any) -> dict[str, Any]:
    """The config of a part of a pipeline."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.load_config(ref, **place)


def scheduler_class(name: str) -> Any:
    """A scheduler class of diffusers by name.

    Raises
    ------
    BlindspotError
        If there is none of that name, or it needs a package that is not installed.
    """
    from diffusers import schedulers

    names = [known for known in dir(schedulers) if known.endswith("Scheduler")]
    if name in names:
        return installed(getattr(schedulers, name))
    hint = _close(name, names) or "; try DDIMScheduler or DPMSolverMultistepScheduler"
    raise BlindspotError(f"diffusers has no scheduler called {name}{hint}.")


def _own_scheduler(source: PipelineSpec) -> Any:
    """The scheduler that comes with a pipeline."""
    import diffusers

    own = (model_index(source).get("scheduler") or (None, None))[1]
    if own is None:
        raise BlindspotError(f"The pipeline {source.pipeline} has no scheduler that could be replaced.")
    place, revision = _configs(source)
    kind = installed(getattr(diffusers, own))
    return _tried(lambda: kind.from_pretrained(place, subfolder="scheduler", revision=revision), source.pipeline)


def replaced_scheduler(own: Any, name: str, pipeline: Any) -> Any:
    """The scheduler of that name with the settings of `own`, if both are of one kind; `pipeline` is for messages.

    Raises
    ------
    BlindspotError
        If there is none of that name, or it does not fit.
    """
    kind = scheduler_class(name)
    try:
        chosen = kind.from_config(own.config)
    except (TypeError, ValueError, AttributeError) as error:
        raise cannot_draw(pipeline, f"{name} does not take the settings of {type(own).__name__}: {error}") from error
    if _matches_flow(chosen) != _matches_flow(own):
        one = "is" if _matches_flow(chosen) else "is not"
        called = (pipeline if isinstance(pipeline, type) else type(pipeline)).__name__
        raise BlindspotError(
            f"{name} {one} for flow matching, unlike {type(own).__name__}, with which {called} was trained; leave "
            "models.*.scheduler out, or name one of its kind."
        )
    return chosen


def _matches_flow(scheduler: Any) -> bool:
    config = scheduler.config
    flow = config.get("prediction_type") == "flow_prediction" or config.get("use_flow_sigmas")
    return type(scheduler).__name__.startswith("FlowMatch") or bool(flow)


def installed(kind: Any) -> Any:
    """A class of diffusers, once the packages that it needs are known to be there."""
    for package in getattr(kind, "_backends", ()):
        _require(package, f"{kind.__name__} of diffusers")
    return kind


def _require(package: str, what: str) -> None:
    if find_spec(package) is None:
        raise BlindspotError(f"{what} needs the package {package}, which is not installed: pip install {package}.")


def _close(name: str, names: Iterable[str]) -> str:
    """`; did you mean ...?` without its end, or nothing."""
    close = difflib.get_close_matches(name, list(names), n=3)
    return f"; did you mean {' or '.join(close)}" if close else ""


def quieten() -> None:
    """Switch off bars and hints of transformers and diffusers, also those of importing diffusers' pipelines."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    from diffusers.utils import logging

    for library in (logging, transformers_logging):
        library.disable_progress_bar()
        library.set_verbosity_error()
