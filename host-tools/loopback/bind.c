// Preloaded into Debian's Bochs 2.7, whose VNC display listens on all interfaces without a password:
// whatever it binds to an Internet address is bound to the loopback address.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

typedef int bind_t(int, const struct sockaddr *, socklen_t);

int bind(int fd, const struct sockaddr *address, socklen_t length) {
    bind_t *next = (bind_t *)dlsym(RTLD_NEXT, "bind");
    struct sockaddr_storage ours = {0};
    if (address != NULL && length <= sizeof(ours)) {
        memcpy(&ours, address, length);
        if (ours.ss_family == AF_INET && length >= sizeof(struct sockaddr_in)) {
            ((struct sockaddr_in *)&ours)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
            address = (struct sockaddr *)&ours;
        } else if (ours.ss_family == AF_INET6 && length >= sizeof(struct sockaddr_in6)) {
            ((struct sockaddr_in6 *)&ours)->sin6_addr = in6addr_loopback;
            address = (struct sockaddr *)&ours;
        }
    }
    return next(fd, address, length);
}
