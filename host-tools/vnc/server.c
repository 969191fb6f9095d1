// libvncserver by functions of plain types, for `pcanel view`: only a compiler knows its structures. The library speaks
// the protocol and listens nowhere: connections are handed to it.
#include <rfb/rfb.h>
#include <stdlib.h>

// down: 1 pressed, 0 released; keysym: of X11.
typedef void key_event_t(int down, unsigned keysym);
// buttons: bit 0 left, 1 middle, 2 right, 3 and 4 the wheel away and towards.
typedef void pointer_event_t(int buttons, int x, int y);

static key_event_t *key_event;
static pointer_event_t *pointer_event;

static void key(rfbBool down, rfbKeySym keysym, rfbClientPtr client) {
    (void)client;
    key_event(down, keysym);
}

static void pointer(int buttons, int x, int y, rfbClientPtr client) {
    pointer_event(buttons, x, y);
    rfbDefaultPtrAddEvent(buttons, x, y, client);
}

// A screen of pixels of 4 bytes: red, green, blue, unused. NULL: no memory.
void *vnc_screen(
    const char *name, int width, int height, key_event_t *on_key, pointer_event_t *on_pointer) {
    rfbLogEnable(0);
    rfbScreenInfoPtr screen = rfbGetScreen(NULL, NULL, width, height, 8, 3, 4);
    if (screen == NULL) {
        return NULL;
    }
    key_event = on_key;
    pointer_event = on_pointer;
    screen->desktopName = name;
    screen->frameBuffer = calloc((size_t)width * height, 4);
    screen->alwaysShared = TRUE;
    screen->port = screen->ipv6port = screen->httpPort = screen->http6Port = 0;
    screen->kbdAddEvent = key;
    screen->ptrAddEvent = pointer;
    screen->cursor = NULL; // the guest draws its own
    if (screen->frameBuffer == NULL) {
        rfbScreenCleanup(screen);
        return NULL;
    }
    rfbInitServer(screen);
    return screen;
}

char *vnc_pixels(rfbScreenInfoPtr screen) {
    return screen->frameBuffer;
}

// 0: no memory, and nothing has changed.
int vnc_resize(rfbScreenInfoPtr screen, int width, int height) {
    char *old = screen->frameBuffer;
    char *pixels = calloc((size_t)width * height, 4);
    if (pixels == NULL) {
        return 0;
    }
    rfbNewFramebuffer(screen, pixels, width, height, 8, 3, 4);
    free(old);
    return 1;
}

// Takes the descriptor of a connection, and closes it at its end.
void vnc_client(rfbScreenInfoPtr screen, int fd) {
    rfbNewClient(screen, fd);
}

void vnc_changed(rfbScreenInfoPtr screen, int left, int top, int right, int bottom) {
    rfbMarkRectAsModified(screen, left, top, right, bottom);
}

// Wait for what clients say, at most so long, and answer. How many there are.
int vnc_serve(rfbScreenInfoPtr screen, long microseconds) {
    int clients = 0;
    rfbProcessEvents(screen, microseconds);
    rfbClientIteratorPtr iterator = rfbGetClientIterator(screen);
    while (rfbClientIteratorNext(iterator) != NULL) {
        clients++;
    }
    rfbReleaseClientIterator(iterator);
    return clients;
}

void vnc_close(rfbScreenInfoPtr screen) {
    char *pixels = screen->frameBuffer;
    rfbShutdownServer(screen, TRUE);
    rfbScreenCleanup(screen);
    free(pixels);
}
