"""The science of Blindspot Atlas: importable from a notebook, without Streamlit and without the offline stages."""
