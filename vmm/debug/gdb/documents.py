"""Documents that gdb reads by qXfer: the target description, threads, and guests (`info os processes`)."""

from vmm.debug.gdb import description
from vmm.debug.gdb.packets import SIZE, BadPacket, escape, numbers
from vmm.debug.gdb.threads import name


class Documents:
    """The part of vmm.debug.gdb.stub.Stub that answers them."""

    def _transfer(self, rest):
        what, _, rest = rest.partition(b":read:")
        annex, _, place = rest.partition(b":")
        offset, size = numbers(place)
        if offset == 0 or (what, annex) not in self._documents:
            self._documents = {(what, annex): self._document(what, annex)}
        document = self._documents[what, annex]
        size = min(size, SIZE // 2)
        return (b"m" if offset + size < len(document) else b"l") + escape(document[offset : offset + size])

    def _document(self, what, annex):
        if what == b"features" and annex == b"target.xml":
            return description.xml(self._rows)
        if what == b"threads":
            return self._threads_xml()
        if what == b"osdata":
            return self._osdata(annex)
        raise BadPacket("no such document")

    def _threads_xml(self):
        parts = ["<threads>"]
        for guest in self.guests.values():
            for tid in self.threads.ids(guest) if not guest.gone else ():
                words = (name(guest.pid, tid).decode(), _text(self.threads.words(guest, tid)))
                parts.append('<thread id="%s">%s</thread>' % words)
        return ("\n".join(parts) + "</threads>").encode()

    def _osdata(self, annex):
        parts = ['<osdata type="%s">' % (annex.decode() or "types")]
        if annex == b"processes":
            for vm in self.monitor.vms.values():
                cells = (("pid", min(vm.vpids)), ("user", vm.state), ("command", vm.name), ("cores", len(vm.vcpus)))
                parts += ["<item>"] + ['<column name="%s">%s</column>' % cell for cell in cells] + ["</item>"]
        elif not annex:
            parts.append('<item><column name="Type">processes</column><column name="Description">The guests</column>')
            parts.append("</item>")
        return ("".join(parts) + "</osdata>").encode()


def _text(text):
    for character, name_ in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(character, name_)
    return text
