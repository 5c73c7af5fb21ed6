"""File formats of people: delimited tables, Johnson's fixed-width files, JSON. Each is read into `Stored` answers."""
