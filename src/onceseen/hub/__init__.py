"""The part of a server that holds workers' links and the writer; no HTTP. Used by server, classify and sources."""
