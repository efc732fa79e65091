"""The site: what is collected for it, what is generated, how it is built and looked at (`./dev docs`)."""
