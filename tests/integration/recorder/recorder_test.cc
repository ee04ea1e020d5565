#include "integration/recorder/log_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "runtime/base/prng.h"
#include "tests/testing/random_messages.h"

namespace foretoken {
namespace {

class Folder {
 public:
  Folder() {
    std::string made = std::filesystem::temp_directory_path() / ("foretoken-log-" + std::string(6, 'X'));
    EXPECT_NE(mkdtemp(made.data()), nullptr);
    path_ = made;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

std::vector<LogRecord> RandomRecords(size_t n, Prng& prng) {
  std::vector<LogRecord> out;
  out.push_back({Instant(), 0, SessionRecord{"t.yaml", "version: 1\n", "/", {"seed=2"}, "router", 3, true, -77}});
  while (out.size() < n) {
    LogRecord r{Instant::FromNanos(static_cast<int64_t>(prng.Below(1 << 30))), static_cast<uint32_t>(prng.Below(4)),
                FullRecord{}};
    switch (prng.Below(10)) {
      case 0: r.body = DeadlineRecord{DecisionId(prng.Next())}; break;
      case 1: r.body = CandidateRecord{InstanceId(static_cast<uint32_t>(prng.Below(9))), prng.Below(2) == 0}; break;
      case 2: r.body = RejectionRecord{RequestId(prng.Next()), OutcomeReason::kShed}; break;
      case 3: r.body = PolicyRecord{"slo", {0.25, Duration::Millis(7), 0.5, 1, 2}}; break;
      case 4: r.body = HostingRecord{InstanceId(static_cast<uint32_t>(prng.Below(9))), prng.Next(), prng.Below(2) == 0}; break;
      case 5: r.body = TimerRecord{InstanceId(static_cast<uint32_t>(prng.Below(9)))}; break;
      case 6:
        r.body = JoinRecord{InstanceId(static_cast<uint32_t>(prng.Below(9))), InstanceId(static_cast<uint32_t>(prng.Below(2))),
                            "j-7", prng.Below(2) == 0};
        break;
      case 7: r.body = LeftRecord{InstanceId(static_cast<uint32_t>(prng.Below(9)))}; break;
      default: r.body = testing::RandomMessage(prng.Below(testing::kMessageKinds), prng); break;
    }
    out.push_back(std::move(r));
  }
  return out;
}

std::vector<LogRecord> ReadAll(const std::string& path, std::string* damaged = nullptr) {
  auto log = LogReader::Open(path);
  EXPECT_TRUE(log.ok());
  std::vector<LogRecord> out;
  for (LogRecord r; log->Next(r);) out.push_back(r);
  if (damaged != nullptr) *damaged = log->damaged();
  return out;
}

void WriteAll(const std::string& path, const std::vector<LogRecord>& records) {
  auto log = LogWriter::Create(path, 1 << 30);
  ASSERT_TRUE(log.ok());
  for (const LogRecord& r : records) ASSERT_TRUE(log->Append(r));
}

TEST(LogFileTest, WhatIsWrittenIsRead) {
  const Folder folder;
  Prng prng(1);
  const auto records = RandomRecords(2'000, prng);
  WriteAll(folder.File("log"), records);
  EXPECT_EQ(ReadAll(folder.File("log")), records);
}

TEST(LogFileTest, ALogThatWasCutAnywhereGivesAllWholeRecordsBeforeTheCut) {
  const Folder folder;
  Prng prng(2);
  const auto records = RandomRecords(60, prng);
  WriteAll(folder.File("whole"), records);
  const auto size = std::filesystem::file_size(folder.File("whole"));
  for (int k = 0; k < 200; ++k) {
    const auto cut = prng.Below(size);
    std::filesystem::copy_file(folder.File("whole"), folder.File("cut"), std::filesystem::copy_options::overwrite_existing);
    std::filesystem::resize_file(folder.File("cut"), cut);
    std::string damaged;
    const auto read = ReadAll(folder.File("cut"), &damaged);
    EXPECT_EQ(damaged, "") << "cut at " << cut;
    ASSERT_LE(read.size(), records.size());
    EXPECT_TRUE(std::equal(read.begin(), read.end(), records.begin())) << "cut at " << cut;
  }
}

TEST(LogFileTest, ADamagedRecordEndsTheReadingWithItsNumber) {
  const Folder folder;
  Prng prng(3);
  WriteAll(folder.File("log"), RandomRecords(20, prng));
  std::ofstream(folder.File("log"), std::ios::app | std::ios::binary) << std::string(64, '\xff');
  std::string damaged;
  EXPECT_EQ(ReadAll(folder.File("log"), &damaged).size(), 20u);
  EXPECT_NE(damaged.find("after record 20"), std::string::npos) << damaged;
}

TEST(LogFileTest, AFullLogSaysSoAndStaysWithinItsSize) {
  const Folder folder;
  Prng prng(4);
  const auto records = RandomRecords(5'000, prng);
  {
    auto log = LogWriter::Create(folder.File("log"), 20'000);
    ASSERT_TRUE(log.ok());
    for (const LogRecord& r : records) log->Append(r);
    EXPECT_GT(log->dropped(), 1'000u);
  }
  EXPECT_LE(std::filesystem::file_size(folder.File("log")), 20'000u);
  const auto read = ReadAll(folder.File("log"));
  ASSERT_GT(read.size(), 5u);
  EXPECT_TRUE(std::holds_alternative<FullRecord>(read.back().body));
  EXPECT_TRUE(std::equal(read.begin(), read.end() - 1, records.begin()));
}

TEST(LogFileTest, AnExistingFileIsNotTouched) {
  const Folder folder;
  std::ofstream(folder.File("log")) << "precious";
  const auto log = LogWriter::Create(folder.File("log"), 1 << 20);
  ASSERT_FALSE(log.ok());
  EXPECT_NE(log.error().message.find("log"), std::string::npos);
  EXPECT_EQ(std::filesystem::file_size(folder.File("log")), 8u);
}

TEST(LogFileTest, HostileBytesAreNoRecords) {
  Prng prng(5);
  const auto records = RandomRecords(200, prng);
  for (int k = 0; k < 20'000; ++k) {
    Frame f = std::move(EncodeRecord(records[prng.Below(records.size())])).value();
    for (uint64_t m = 1 + prng.Below(4); m > 0; --m) f[prng.Below(f.size())] = static_cast<std::byte>(prng.Next());
    if (prng.Below(4) == 0) f.resize(prng.Below(f.size()) / 8 * 8);
    const auto decoded = DecodeRecord(f);  // any answer, no crash
    if (decoded.ok()) {
      EXPECT_TRUE(EncodeRecord(*decoded).ok());
    }
  }
}

}  // namespace
}  // namespace foretoken
