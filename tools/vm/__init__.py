"""A Debian virtual machine for what this machine's kernel lacks: built once, booted for a job, gone afterwards."""
