"""Settings and pipelines.yaml, read once into frozen models.

`models` is what the other rooms see. `yaml_source` reads YAML with positions,
`interpolation` fills in variables, `settings` reads environment and `.env`, `checks`
holds the rules that no type can say, `load` puts it together and reports every mistake at
once; `schema` and `templates` are for those who write the file.
"""
