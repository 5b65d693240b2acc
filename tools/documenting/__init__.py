"""The pages of the site: written ones, READMEs that stand beside the code, and tables that follow from the configs."""
