"""What a person sees: thin pages that read the URL, ask the engine and place widgets. Only they import streamlit."""
