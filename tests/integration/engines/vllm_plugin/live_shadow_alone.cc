// Reads a plugin's frames from standard input into a LiveShadow and prints what came of it. live_shadow_alone [LOSS SEED]: that share
// of the messages is lost; the shadow is told at the next one, and finds its way back by the stream's own snapshots.
#include <cstdlib>
#include <iostream>
#include <iterator>
#include <string>
#include <variant>
#include <vector>

#include "integration/engines/vllm/live_shadow.h"
#include "integration/transport/frame_assembler.h"
#include "runtime/base/prng.h"
#include "schema/codec.h"

int main(int argc, char** argv) {
  using namespace foretoken;
  const double loss = argc > 1 ? std::atof(argv[1]) : 0;
  Prng prng(argc > 2 ? static_cast<uint64_t>(std::atoll(argv[2])) : 1);
  const std::string bytes((std::istreambuf_iterator<char>(std::cin)), std::istreambuf_iterator<char>());
  FrameAssembler frames(kFrameBytesMax);
  frames.Append(std::as_bytes(std::span(bytes)));
  LiveShadow shadow;
  uint64_t read = 0, lost = 0, next = 0;
  for (auto frame = frames.Next(); !frame.empty(); frame = frames.Next()) {
    auto message = Decode(frame);
    if (!message.ok()) {
      std::cerr << "frame " << read << ": " << message.error().message << "\n";
      return 1;
    }
    auto& m = std::get<StreamMessage>(*message);
    ++read;
    const bool snapshot = std::holds_alternative<Snapshot>(m.body);
    if (m.seq > 0 && !snapshot && prng.Chance(loss)) {
      ++lost;
      continue;
    }
    if (m.seq != next) shadow.Lose("messages are missing");
    next = m.seq + 1;
    if (const auto* hello = std::get_if<Hello>(&m.body)) {
      shadow.OnHello(*hello);
    } else if (!snapshot || shadow.level() == StateLevel::kExact || shadow.wants_snapshot()) {
      shadow.Apply(m.body);
    }
  }
  const LiveShadow::Counters& c = shadow.counters();
  std::cout << "{\"frames\": " << read << ", \"lost\": " << lost << ", \"steps\": " << c.steps
            << ", \"followed\": " << c.followed << ", \"disagreements\": " << c.disagreements
            << ", \"compared\": " << c.compared << ", \"differed\": " << c.differed << ", \"restored\": " << c.restored
            << ", \"exact\": " << (shadow.level() == StateLevel::kExact ? "true" : "false") << ", \"disagreement\": \""
            << shadow.last_disagreement() << "\", \"difference\": \"" << shadow.last_difference() << "\", \"why\": \""
            << shadow.why() << "\"}\n";
}
