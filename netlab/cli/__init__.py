"""The command line: a thin face over netlab.client. Modules are loaded a verb at a time; `netlab.cli.app` has the table."""
