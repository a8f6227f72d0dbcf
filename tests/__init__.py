import gc

from roadmap.common.machine import NEW_OBJECTS

gc.set_threshold(NEW_OBJECTS)  # before all that tests import
