"""The result as a document that can be filed: PDF, text for a dictation, FHIR, and a table of several time points."""
