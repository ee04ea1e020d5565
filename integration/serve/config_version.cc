#include "integration/serve/config_version.h"

#include <bit>
#include <string_view>

#include "runtime/base/prng.h"

namespace foretoken {
namespace {

class Digest {
 public:
  void Add(uint64_t v) { value_ = Mix64(value_, v); }
  void Add(double v) { Add(std::bit_cast<uint64_t>(v)); }
  void Add(std::string_view text) {
    for (const char c : text) Add(static_cast<uint64_t>(static_cast<unsigned char>(c)));
    Add(uint64_t{text.size()});
  }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0x46545631;
};

}  // namespace

uint64_t ConfigVersionOf(const Topology& topology, InstanceId instance) {
  const Instance& i = topology.instances[instance.value()].instance;
  const EngineSpec& engine = topology.EngineOf(instance);
  Digest d;
  d.Add(i.name);
  d.Add(i.endpoint);
  d.Add(uint64_t{i.dp_rank});
  d.Add(static_cast<uint64_t>(i.role));
  for (const auto* models : {&i.models, &i.adapters})
    for (const ModelId m : *models) d.Add(topology.models[m.value()]);
  d.Add(static_cast<uint64_t>(engine.adapter));
  d.Add(engine.behaviour);
  const EngineConfig& c = engine.limits;
  for (const int64_t v :
       {int64_t{c.max_num_seqs}, int64_t{c.max_num_batched_tokens}, int64_t{c.num_gpu_blocks}, int64_t{c.block_size},
        c.max_model_len, int64_t{c.prefix_caching}, int64_t{c.async_scheduling}, int64_t{c.policy == QueuePolicy::kPriority}})
    d.Add(static_cast<uint64_t>(v));
  // What the speed is, rather than how it is written down.
  if (engine.predictor_step_time.law != nullptr)
    for (const StepShape& shape : {StepShape{512, 0, 0, 0}, StepShape{0, 0, 1, 1'000}, StepShape{0, 0, 64, 100'000}})
      d.Add(engine.predictor_step_time.NanosOf(shape));
  return d.value();
}

}  // namespace foretoken
