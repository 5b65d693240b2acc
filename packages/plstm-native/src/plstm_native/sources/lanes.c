/* How wide the vectors of a library are. */

#include "lanes.h"

int vector_lanes(void) { return LANES; }
