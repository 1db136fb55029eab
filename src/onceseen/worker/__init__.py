"""A process that runs models; it knows no SQL, no broker, no store. `supervisor` keeps a number of them alive."""
