#include "runtime/engine/vllm_core.h"
namespace foretoken {
Snapshot VllmCore::TakeSnapshot(bool) const { return {}; }
Status VllmCore::CheckInvariants() const { return pool_.CheckInvariants(); }
}
