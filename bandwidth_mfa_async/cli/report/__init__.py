"""The command `report`: show the outcomes of a bulk run from its journal."""
