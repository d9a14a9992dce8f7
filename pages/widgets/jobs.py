"""The app's queue of jobs: where its results lie, who asks, and how one job is followed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from engine.devices import DEVICE, DTYPE
from engine.errors import BlindspotError
from engine.files import user_data
from engine.jobs import Job, JobQueue
from pages.widgets import html, session

RESULTS = "BLINDSPOT_RESULTS"


@st.cache_resource(show_spinner=False)
def queue() -> JobQueue:
    """Return the process's queue; its results outlive it, so that a link to a job keeps working."""
    return JobQueue(results_folder(), devices=(device(),), alive=_is_here)


def device() -> str:
    """Return the device that BLINDSPOT_DEVICE names; "auto" is the GPU if there is one."""
    return os.environ.get(DEVICE) or "auto"


def dtype() -> str | None:
    """Return the precision that BLINDSPOT_DTYPE names, if it names one."""
    return os.environ.get(DTYPE) or None


def results_folder() -> Path:
    """Return the folder of all drawings: what BLINDSPOT_RESULTS says, else one that only this user may open.

    Raises
    ------
    BlindspotError
        If it cannot be made, or if the default one is somebody else's.
    """
    named = os.environ.get(RESULTS)
    folder = Path(named).expanduser() if named else user_data() / "jobs"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if not named and os.name == "posix":
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise BlindspotError(
                    f"Drawings are not kept in {folder}, which is a link or somebody else's: remove it, or set "
                    f"{RESULTS} to a folder of your own."
                )
            folder.chmod(0o700)
    except OSError as error:
        raise BlindspotError(
            f"Drawings cannot be kept in {folder}: {error.strerror or error}; set {RESULTS} to a folder of your own."
        ) from error
    return folder


def me() -> str:
    """Return the id of this browser tab's session."""
    context = get_script_run_ctx()
    return context.session_id if context is not None else ""


def _is_here(holder: str) -> bool:
    """Return whether a session's tab is still open."""
    return not runtime.exists() or runtime.get_instance().is_active_session(holder)


@html.fragment(run_every=0.5)
def progress(key: str) -> None:
    """Follow one job while it lives; the page runs again when it has ended."""
    job = queue().follow(key, me())
    if job is None or job.state == "done":
        st.rerun()
    if job.ended:
        if job.state == "failed":
            st.error(html.plain(job.error, code=True), icon=":material/error:")
        else:
            st.info("Cancelled.")
        if st.button("Clear", key="clear_job"):
            session.change(job=None)
            st.rerun()
        return
    st.progress(job.step / job.steps if job.steps else 0.0, text=progress_text(job))
    if job.preview:
        st.html(html.render("generate.preview", src=html.data_uri(job.preview, "jpeg")))
    if st.button("Cancel", icon=":material/close:", key="cancel_job") and not queue().cancel(key, me()):
        st.toast("Somebody else waits for these images too, so they are drawn all the same.")
        session.change(job=None)
        st.rerun()


def progress_text(job: Job) -> str:
    """Say where a job is: its place in the queue, or its step and the time left."""
    if job.state == "queued":
        return f"Waiting, {job.position} before this one" if job.position else "Starts next"
    if job.step == 0:
        return "Loading the models (once per start of the app)"
    left = "" if job.seconds_left is None else f", about {max(1, round(job.seconds_left))} s left"
    return f"Step {job.step} of {job.steps}{left}"
