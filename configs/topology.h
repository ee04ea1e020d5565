// Topology: everything that a run is made of, as typed values: engines, instances, predictor, scheduler, sync, nodes, gateway,
// faults. Produced by ParseTopology (topology_reader.h) from YAML, complete and checked: every reference resolves, every number
// is in range, every table is loaded. Only main sees the whole of it; each module gets its own slice.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/engine/engine_config.h"
#include "runtime/fault/fault_plan.h"
#include "runtime/model/instance.h"
#include "runtime/model/prediction.h"
#include "runtime/model/request.h"
#include "runtime/model/stream_message.h"
#include "runtime/perf/step_time_model.h"
#include "runtime/predict/enqueue_order.h"
#include "runtime/sched/policy.h"
#include "runtime/sync/sequencer.h"
#include "runtime/workload/length_estimator.h"

namespace foretoken {

// Who executes the requests of an instance.
enum class EngineAdapter : uint8_t { kEmulated, kVllm, kOpenai, kLlama };

// A kind of engine, which instances refer to by name.
struct EngineSpec {
  std::string name;
  EngineAdapter adapter = EngineAdapter::kEmulated;
  std::string behaviour;                   // "vllm-0.32", "sglang": whose scheduling rules
  EngineConfig limits;                     // with the version's rules applied; num_gpu_blocks includes vLLM's null block
  StepTimeModel step_time;                 // emulated: the truth; else what is believed
  double step_noise = 0;                   // StepNoise::sigma of the truth; predictors never see it
  uint64_t slow_from_step = ~uint64_t{0};  // the truth turns slow from this step on, by slow_factor; predictors never see it
  double slow_factor = 1;
  StepTimeModel predictor_step_time;  // what the predictors and the policies hold
  Duration ttft_offset;               // front-end time outside the engine, added to TTFT and E2E of predictions
  std::string step_table;             // as written in the file; empty: an inline law

  // Tokens that the KV cache holds.
  int64_t kv_tokens() const { return static_cast<int64_t>(limits.num_gpu_blocks - 1) * limits.block_size; }
};

struct Pool {
  std::string name;
  std::vector<ModelId> models;
  Slo slo;  // of its requests that state none
  std::vector<InstanceId> instances;
};

struct InstanceSpec {
  Instance instance;
  uint32_t engine = 0;  // index in Topology::engines
};

struct PredictorSpec {
  PredictorKind kind = PredictorKind::kTimeline;
  LengthEstimatorKind length_estimator = LengthEstimatorKind::kSampled;
  bool expected_arrivals = true;
  bool calibrate = true;
  // Of virtual runs only: what is added to every prediction's times (PredictionFault in runtime/eval/virtual_host.h).
  double inject_error = 0;
  double inject_bias = 0;
  bool demote = false;  // fall back to a simpler predictor while an instance's error is out of bounds
};

enum class Hosting : uint8_t {
  kActor,  // one SIMULATOR per actor
  kShard,  // one actor hosts the SIMULATORs of a shard
};

struct SchedulerSpec {
  int32_t count = 1;
  std::string policy = "auto";
  PolicyWeights weights;
  Duration decision_deadline = Duration::Millis(5);
  Hosting hosting = Hosting::kActor;
  int32_t shard_size = 64;  // SIMULATORs per actor under kShard
  RepickRule repick = RepickRule::kVersioned;
  int32_t predict_max = 0;  // > 0: only so many candidates, the best by loads, are asked for predictions
  std::string prefilter = "lmetricw";
  int32_t retry_max = 3;        // after an engine's refusal
  int32_t retry_max_crash = 1;  // after a crash or restart under the request
  double shed_above = 0;        // > 0: refuse when the best candidate's P(SLO violation) exceeds it; 0: never
  int32_t shed_priority = 0;    // only requests of this priority number or a higher one (less urgent) are refused
};

struct SyncSpec {
  SyncLevel level = SyncLevel::kFull;
  Duration poll_interval = Duration::Millis(100);  // level kPoll
  SequencerOptions sequencer;                      // gap_timeout, reorder window, resync_retry
  Duration stale_after = Duration::Millis(500);
  Duration dead_after = Duration::Seconds(2);
  Duration confirm_timeout = Duration::Seconds(5);
  Duration heartbeat = Duration::Millis(250);
  bool exact_snapshots = false;
};

// "127.0.0.1:7400".
struct Address {
  std::string host;
  uint16_t port = 0;
  std::string ToString() const { return host + ":" + std::to_string(port); }
  bool operator==(const Address&) const = default;
};

// One process of a cluster and what it hosts.
struct NodeSpec {
  std::string name;
  Address listen;
  bool scheduler = false;
  bool gateway = false;
  std::vector<InstanceId> instances;   // INSTANCE of these
  std::vector<InstanceId> simulators;  // SIMULATOR of these; the same ones unless the file parts them
};

struct TlsSpec {
  std::string certificate, key, ca;  // paths, resolved against the topology's folder
};

// The gateway's settings; each has the flag of the same name (gateway.md).
struct GatewaySpec {
  Address listen{"127.0.0.1", 30000};
  std::optional<Address> admin;  // metrics, dashboard, membership
  Duration request_timeout = Duration::Seconds(1800);
  int64_t max_payload_bytes = 64 << 20;
  int32_t max_concurrent_requests = 0;  // 0: no limit
  int32_t queue_size = 100;             // requests that wait when max_concurrent_requests is reached
  Duration queue_timeout = Duration::Seconds(60);
  Duration header_timeout = Duration::Seconds(10);
  Duration idle_timeout = Duration::Seconds(75);
  std::string api_key_file;  // path; empty: no key asked for
  std::vector<std::string> request_id_headers = {"x-request-id"};
  std::string workers_file;  // path; workers besides the topology's, followed as it changes; empty: none
  std::string workers_dns;   // http://NAME:PORT: so are all addresses of NAME; empty: none
  Duration dns_interval = Duration::Seconds(5);
};

struct Topology {
  std::string file;  // for messages
  Slo slo;
  std::vector<std::string> models;  // ModelId is the index; adapters included
  std::vector<EngineSpec> engines;
  std::vector<Pool> pools;
  std::vector<InstanceSpec> instances;  // InstanceId is the index; in file order
  PredictorSpec predictor;
  SchedulerSpec scheduler;
  SyncSpec sync;
  std::vector<NodeSpec> nodes;  // empty: all in one process
  std::optional<TlsSpec> tls;
  std::optional<GatewaySpec> gateway;
  FaultPlan faults;
  uint64_t seed = 1;

  const EngineSpec& EngineOf(InstanceId id) const { return engines[instances[id.value()].engine]; }
  std::optional<InstanceId> FindInstance(std::string_view name) const;
  std::optional<ModelId> FindModel(std::string_view name) const;
  std::vector<std::string> InstanceNames() const;
};

// The names that files and flags use.
std::string_view NameOf(SyncLevel level);
std::string_view NameOf(PredictorKind kind);
std::string_view NameOf(LengthEstimatorKind kind);

}  // namespace foretoken
