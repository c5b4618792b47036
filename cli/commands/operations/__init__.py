"""Commands that start processes and show whether the installation is well."""
