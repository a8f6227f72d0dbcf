from roadmap.common.machine import collect_garbage_rarely

collect_garbage_rarely()  # before all that tests import
