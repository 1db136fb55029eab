"""The vocabularies of HTTP and of the link: what is said, not how it travels."""
