"""Parts that several pages share: URL state, data access, controls, the live HTML and plot components, the card."""
