"""The two protocols of IPIP-NEO-300, for tests that need no other inventory."""

from palign_bench.questionnaire.inventory import ipip_neo_300
from palign_bench.questionnaire.protocol import AsReleased, Corrected

CORRECTED, AS_RELEASED = Corrected(ipip_neo_300()), AsReleased(ipip_neo_300())
