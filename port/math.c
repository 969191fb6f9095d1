// Math functions that libm_dbl lacks or gets wrong.
#include <math.h>

double copysign(double x, double y) {
    return __builtin_copysign(x, y);
}

// libm_dbl's is one unit off at 1.0, so math.exp(1) would not be math.e.
double libm_exp(double x);
double exp(double x) {
    return x == 1.0 ? 2.718281828459045 : libm_exp(x);
}

double fabs(double x) {
    return __builtin_fabs(x);
}

double nan(const char *tag) {
    (void)tag;
    return __builtin_nan("");
}
