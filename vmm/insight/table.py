"""A list of tuples that prints as a table."""


class Table(list):
    """columns: the names of the tuples' items; formats: of each item, such as "%x". Text is on the left, numbers on the
    right, also where some rows have "" in their place."""

    def __init__(self, columns, rows, formats=None):
        super().__init__(rows)
        self.columns = columns
        self.formats = formats or ("%s",) * len(columns)

    def __repr__(self):
        texts = [[self.formats[i] % (row[i],) for i in range(len(row))] for row in self]
        widths = [max([len(name)] + [len(row[i]) for row in texts]) for i, name in enumerate(self.columns)]
        left = [any([isinstance(row[i], str) and row[i] for row in self]) for i in range(len(widths))]
        form = "  ".join([("%%-%ds" if left[i] else "%%%ds") % width for i, width in enumerate(widths)])
        return "\n".join([(form % tuple(row)).rstrip() for row in [list(self.columns)] + texts])

    __str__ = __repr__
