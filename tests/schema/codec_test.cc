// The codec: what goes in comes out, and nothing that a peer can send harms us.
#include "schema/codec.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <string>

#include "runtime/model/wire_size.h"
#include "schema/decision.capnp.h"
#include "schema/frame.capnp.h"
#include "tests/testing/inputs.h"
#include "tests/testing/random_messages.h"

namespace foretoken {
namespace {

using testing::kMessageKinds;
using testing::kStreamKinds;
using testing::RandomMessage;
using testing::RandomStreamMessage;

std::string ErrorOf(const Result<Message>& r) { return r.ok() ? "" : r.error().message; }

std::string ErrorOfFrame(capnp::MessageBuilder& b, const DecodeLimits& limits = {}) {
  const auto words = capnp::messageToFlatArray(b);
  const auto bytes = words.asBytes();
  return ErrorOf(Decode({reinterpret_cast<const std::byte*>(bytes.begin()), bytes.size()}, limits));
}

std::string ErrorOfMessage(const Message& m, const DecodeLimits& limits = {}) {
  auto frame = Encode(m);
  EXPECT_TRUE(frame.ok());
  return ErrorOf(Decode(*frame, limits));
}

StreamMessage WithTrace(BatchTrace t) { return {InstanceId(1), SourceId(0), Epoch(1), 7, std::move(t)}; }

TEST(CodecTest, AStreamMessagesSizeIsKnownWithoutEncodingIt) {
  for (const uint64_t seed : testing::Seeds(20)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    for (size_t body = 0; body < kStreamKinds; ++body)
      for (const int64_t list_max : {0, 1, 8, 40}) {
        const StreamMessage m = RandomStreamMessage(body, prng, list_max);
        const auto frame = Encode(m);
        ASSERT_TRUE(frame.ok());
        const auto size = static_cast<int64_t>(frame->size());
        if (size <= 2048) {  // one segment
          ASSERT_EQ(WireBytesOf(m), size) << "body " << body << ", lists of " << list_max;
        } else {  // pointers between segments besides
          ASSERT_LE(WireBytesOf(m), size) << "body " << body << ", lists of " << list_max;
          ASSERT_GE(WireBytesOf(m), 9 * size / 10) << "body " << body << ", lists of " << list_max;
        }
      }
  }
}

TEST(CodecTest, EveryMessageComesOutAsItWentIn) {
  for (const uint64_t seed : testing::Seeds(20)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    for (size_t kind = 0; kind < kMessageKinds; ++kind)
      for (int i = 0; i < 10; ++i) {
        const Message m = RandomMessage(kind, prng);
        const auto frame = Encode(m);
        ASSERT_TRUE(frame.ok()) << frame.error().message;
        const auto back = Decode(*frame);
        ASSERT_TRUE(back.ok()) << NameOf(m) << ": " << back.error().message;
        ASSERT_TRUE(*back == m) << NameOf(m);
      }
    for (size_t body = 0; body < kStreamKinds; ++body) {
      const StreamMessage m = RandomStreamMessage(body, prng, 40);
      const auto frame = Encode(m);
      ASSERT_TRUE(frame.ok());
      const auto back = Decode(*frame);
      ASSERT_TRUE(back.ok()) << "body " << body << ": " << back.error().message;
      ASSERT_TRUE(std::get<StreamMessage>(*back) == m) << "body " << body;
    }
  }
}

// Does not compile when a struct grows: then the codec, RandomMessage and this must learn the new field.
TEST(CodecTest, EveryFieldIsKnown) {
  [[maybe_unused]] const auto& [h1, h2, h3, h4, h5, h6, h7, h8, h9, h10, h11, h12, h13, h14, h15, h16, h17] = Hello();
  [[maybe_unused]] const auto& [a1, a2, a3, a4, a5, a6, a7, a8] = Arrived();
  [[maybe_unused]] const auto& [x1, x2, x3] = BlocksHashed();
  [[maybe_unused]] const auto& [t1, t2, t3, t4, t5, t6, t7, t8, t9, t10, t11, t12, t13, t14, t15, t16, t17, t18, t19, t20] =
      BatchTrace();
  [[maybe_unused]] const auto& [c1, c2, c3, c4] = BatchTrace::Chunk();
  [[maybe_unused]] const auto& [d1, d2, d3] = BatchTrace::Admission();
  [[maybe_unused]] const auto& [f1, f2, f3] = BatchTrace::Finish();
  [[maybe_unused]] const auto& [s1, s2, s3, s4, s5, s6, s7, s8] = Snapshot();
  [[maybe_unused]] const auto& [r1, r2, r3, r4, r5] = Snapshot::Request();
  [[maybe_unused]] const auto& [b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13] = Snapshot::RequestBlocks();
  [[maybe_unused]] const auto& [i1, i2, i3, i4, i5] = Snapshot::InFlight();
  [[maybe_unused]] const auto& [e1, e2, e3, e4, e5, e6, e7, e8] = Snapshot::Exact();
  [[maybe_unused]] const auto& [g1, g2, g3, g4, g5] = Aggregate();
  [[maybe_unused]] const auto& [k1, k2, k3, k4, k5, k6] = Heartbeat();
  [[maybe_unused]] const auto& [echo1, echo2] = Heartbeat::Echo();
  [[maybe_unused]] const auto& [m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11] = RequestMeta();
  [[maybe_unused]] const auto& [p1, p2, p3, p4, p5, p6, p7, p8, p9, p10, p11, p12, p13, p14, p15, p16, p17, p18, p19, p20,
                                p21] = Prediction();
  [[maybe_unused]] const auto& [q1, q2, q3, q4, q5] = Question();
  [[maybe_unused]] const auto& [o1, o2, o3, o4, o5, o6, o7, o8, o9, o10] = EnqueueRequest();
  [[maybe_unused]] const auto& [v1, v2, v3, v4, v5] = EnqueueReply();
}

TEST(CodecTest, TheSameMessageGivesTheSameBytes) {
  Prng prng(5);
  for (size_t kind = 0; kind < kMessageKinds; ++kind) {
    const Message m = RandomMessage(kind, prng);
    EXPECT_EQ(*Encode(m), *Encode(m)) << NameOf(m);
  }
}

TEST(CodecTest, AFrameNeedNotBeAligned) {
  Prng prng(6);
  const Message m = RandomMessage(8, prng);
  const auto frame = Encode(m);
  std::vector<std::byte> shifted(frame->size() + 1);
  std::memcpy(shifted.data() + 1, frame->data(), frame->size());
  const auto back = Decode({shifted.data() + 1, frame->size()});
  ASSERT_TRUE(back.ok());
  EXPECT_TRUE(*back == m);
}

// What a damaged frame decodes to, if to anything, is a message that encodes again: nothing impossible got in.
void ExpectErrorOrSoundMessage(std::span<const std::byte> bytes) {
  const auto m = Decode(bytes);
  if (m.ok()) {
    EXPECT_TRUE(Encode(*m).ok());
  }
}

TEST(CodecTest, TruncatedFramesAreErrorsNotCrashes) {
  for (const uint64_t seed : testing::Seeds(3)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    for (size_t kind = 0; kind < kMessageKinds; ++kind) {
      const auto frame = Encode(RandomMessage(kind, prng));
      ASSERT_TRUE(frame.ok());
      for (size_t n = 0; n < frame->size(); ++n)
        EXPECT_FALSE(Decode({frame->data(), n}).ok()) << "kind " << kind << ", " << n << " of " << frame->size() << " bytes";
    }
  }
}

TEST(CodecTest, DamagedFramesNeverCrash) {
  const uint64_t cases = testing::Cases(20'000);
  for (const uint64_t seed : testing::Seeds(2)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    for (uint64_t i = 0; i < cases; ++i) {
      Frame frame = std::move(Encode(RandomMessage(i % kMessageKinds, prng))).value();
      for (uint64_t n = prng.Between(1, 6); n > 0; --n) {
        // The segment table and the pointers near the root do the most harm.
        const size_t within = prng.Chance(0.5) ? std::min<size_t>(frame.size(), 64) : frame.size();
        std::byte& b = frame[prng.Below(within)];
        b = prng.Chance(0.5) ? b ^ static_cast<std::byte>(1u << prng.Below(8)) : static_cast<std::byte>(prng.Next());
      }
      ExpectErrorOrSoundMessage(frame);
    }
  }
}

TEST(CodecTest, NoiseNeverCrashes) {
  for (const uint64_t seed : testing::Seeds(2)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    for (uint64_t i = 0; i < testing::Cases(20'000); ++i) {
      Frame frame(8 * prng.Below(40));
      for (std::byte& b : frame) b = static_cast<std::byte>(prng.Chance(0.6) ? 0 : prng.Next());
      if (frame.size() >= 8 && prng.Chance(0.8)) {  // a believable segment table: one segment of the right size
        const uint32_t words = static_cast<uint32_t>(frame.size() / 8 - 1);
        std::memset(frame.data(), 0, 4);
        std::memcpy(frame.data() + 4, &words, 4);
      }
      ExpectErrorOrSoundMessage(frame);
    }
  }
}

TEST(CodecTest, AFrameIsAPositiveMultipleOfEightBytesUpToTheCap) {
  EXPECT_NE(ErrorOf(Decode({})).find("multiple of 8"), std::string::npos);
  const Frame odd(12);
  EXPECT_NE(ErrorOf(Decode(odd)).find("multiple of 8"), std::string::npos);
  const Frame large(kFrameBytesMax + 8);
  EXPECT_NE(ErrorOf(Decode(large)).find("at most 1048576"), std::string::npos);
}

TEST(CodecTest, AMessageThatDoesNotFitIsRefusedBySender) {
  Snapshot s;
  s.running.resize(60'000);
  const auto frame = Encode(StreamMessage{InstanceId(0), SourceId(0), Epoch(1), 0, std::move(s)});
  ASSERT_FALSE(frame.ok());
  EXPECT_NE(frame.error().message.find("at most 1048576"), std::string::npos);
}

TEST(CodecTest, AnExactSnapshotOfALargeEngineFits) {
  Snapshot s;
  Snapshot::Exact e;
  s.running.resize(256);
  s.waiting.resize(744);
  e.requests.resize(1000);
  for (auto& r : e.requests) r.blocks.resize(13), r.prompt_hashes.resize(8);
  e.free_list.resize(13'000);
  for (uint32_t b = 0; b < 26'000; ++b) e.hashed_blocks.emplace_back(b, BlockHash(b * 7ull));
  s.exact = std::move(e);
  const auto frame = Encode(StreamMessage{InstanceId(0), SourceId(0), Epoch(1), 0, std::move(s)});
  ASSERT_TRUE(frame.ok()) << frame.error().message;
  EXPECT_TRUE(Decode(*frame).ok());
}

TEST(CodecTest, AClaimedListLengthIsCheckedBeforeAnythingIsAllocated) {
  // The snapshot's list pointers claim half a billion elements; were one believed, the reserve alone would take gigabytes.
  Frame frame = std::move(Encode(StreamMessage{InstanceId(0), SourceId(0), Epoch(1), 0, Snapshot{}})).value();
  const size_t words = frame.size() / 8;
  size_t refused = 0;
  for (size_t w = 1; w < words; ++w)
    for (uint64_t element_size = 0; element_size < 8; ++element_size) {
      Frame damaged = frame;
      const uint64_t pointer = 1 | (element_size << 32) | (uint64_t{0x1FFFFFFF} << 35);
      std::memcpy(damaged.data() + 8 * w, &pointer, 8);
      refused += !Decode(damaged).ok();
    }
  EXPECT_GT(refused, 0u);
}

TEST(CodecTest, AliasedPointersDoNotAmplify) {
  // A list whose 100 elements all point at one large list: each alone is sound, together they would decode to 100 times the frame.
  capnp::MallocMessageBuilder b(1 << 15);  // words: one segment, so that plain offsets do
  auto exact = b.initRoot<wire::Frame>().initStream().initBody().initSnapshot().initExact();
  auto requests = exact.initRequests(100);
  requests[0].initBlocks(20'000);
  auto words = capnp::messageToFlatArray(b);
  auto bytes = words.asBytes();
  ASSERT_TRUE(Decode({reinterpret_cast<const std::byte*>(bytes.begin()), bytes.size()}).ok());
  // Point every element's `blocks` at element 0's: same target, so each offset differs by the distance between the pointers.
  uint64_t* w = reinterpret_cast<uint64_t*>(bytes.begin());
  const size_t n = bytes.size() / 8;
  size_t first = 0;
  for (size_t i = 1; i < n; ++i)
    if ((w[i] & 3) == 1 && (w[i] >> 35) == 20'000) first = i;
  ASSERT_GT(first, 0u);
  const size_t stride = 8;  // words of a RequestBlocks: six of data, two of pointers
  for (size_t k = 1; k < 100; ++k) {
    const int64_t offset = static_cast<int32_t>(w[first] & 0xFFFFFFFF) >> 2;
    const uint32_t low = static_cast<uint32_t>(((offset - static_cast<int64_t>(stride * k)) << 2) | 1);
    w[first + stride * k] = (w[first] & 0xFFFFFFFF00000000ull) | low;
  }
  const auto r = Decode({reinterpret_cast<const std::byte*>(bytes.begin()), bytes.size()});
  ASSERT_FALSE(r.ok());
  EXPECT_NE(r.error().message.find("limit"), std::string::npos) << r.error().message;
}

TEST(CodecTest, ImpossibleStepsAreRefusedByName) {
  BatchTrace t;
  t.duration = Duration::Nanos(-1);
  EXPECT_NE(ErrorOfMessage(WithTrace(t)).find("step.duration"), std::string::npos);
  t = {};
  t.decode_seqs = 257;
  EXPECT_EQ(ErrorOfMessage(WithTrace(t)), "");
  EXPECT_NE(ErrorOfMessage(WithTrace(t), {8, 256, 8192}).find("max_num_seqs"), std::string::npos);
  t = {};
  t.prefill_tokens = 8193;
  EXPECT_NE(ErrorOfMessage(WithTrace(t), {8, 256, 8192}).find("max_num_batched_tokens"), std::string::npos);
  t = {};
  t.prefill_tokens = std::numeric_limits<int32_t>::max();  // the sum must not wrap
  t.decode_seqs = 1;
  EXPECT_NE(ErrorOfMessage(WithTrace(t), {8, 256, 8192}).find("max_num_batched_tokens"), std::string::npos);
  t = {};
  t.free_blocks = 2;
  t.total_blocks = 1;
  EXPECT_NE(ErrorOfMessage(WithTrace(t)).find("total_blocks"), std::string::npos);
  t = {};
  t.chunks = {{RequestId(1), -4, 0, false}};
  EXPECT_NE(ErrorOfMessage(WithTrace(t)).find("chunks[].tokens"), std::string::npos);
}

TEST(CodecTest, AnUnknownInstanceIsRefused) {
  const Message m = Cancel{RequestId(1), InstanceId(8), OutcomeReason::kClientGone};
  EXPECT_EQ(ErrorOfMessage(m, {9}), "");
  EXPECT_NE(ErrorOfMessage(m, {8}).find("instance"), std::string::npos);
}

TEST(CodecTest, NanIsRefused) {
  Decision d;
  d.score = std::numeric_limits<double>::quiet_NaN();
  EXPECT_NE(ErrorOfMessage(d).find("score"), std::string::npos);
}

TEST(CodecTest, AnOrdinalOfANewerPeerIsRefusedByName) {
  capnp::MallocMessageBuilder b;
  b.initRoot<wire::Frame>().initCancel().setReason(static_cast<wire::OutcomeReason>(999));
  EXPECT_NE(ErrorOfFrame(b).find("outcome reason: known"), std::string::npos);
  capnp::MallocMessageBuilder c;
  c.initRoot<wire::Frame>().initDecision().setPredictor(static_cast<wire::PredictorKind>(5));
  EXPECT_NE(ErrorOfFrame(c).find("decision.predictor: known"), std::string::npos);
}

TEST(CodecTest, ExpectedOutputOfZeroIsRefused) {
  capnp::MallocMessageBuilder b;
  b.initRoot<wire::Frame>().initPredict().initQuestion().setExpectedOutput(0);
  EXPECT_NE(ErrorOfFrame(b).find("expected_output: >= 1"), std::string::npos);
}

TEST(CodecTest, AReservationSurvivesTheWayOverTheWire) {
  // Reservation and query are derived from what was sent, not sent twice.
  Prng prng(9);
  const EnqueueRequest sent = std::get<EnqueueRequest>(RandomMessage(8, prng));
  const auto frame = Encode(Message(sent));
  const auto back = Decode(*frame);
  ASSERT_TRUE(back.ok());
  const EnqueueRequest& got = std::get<EnqueueRequest>(*back);
  const EnqueueOrder order = OrderOf(got);
  EXPECT_TRUE(RequestOf(order, got.at) == sent);
  EXPECT_EQ(order.reservation.request, sent.question.request.id);
  EXPECT_EQ(order.reservation.segments, sent.question.request.segments);
  EXPECT_EQ(order.reservation.expected_output, sent.question.expected_output.value());
}

}  // namespace
}  // namespace foretoken
