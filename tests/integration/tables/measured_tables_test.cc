// Importers and fits against the measured data, which stays outside the repository: skipped where it is absent.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "configs/step_table.h"
#include "configs/tables/embedded_tables.h"
#include "integration/accuracy/measured_run.h"
#include "integration/accuracy/replay.h"
#include "integration/tables/csv.h"
#include "integration/tables/fit.h"
#include "integration/tables/silicon.h"
#include "integration/tables/vllm_profile.h"
#include "runtime/base/result.h"
#include "runtime/perf/profile_step_law.h"
#include "runtime/perf/step_time_table.h"

namespace foretoken::tables {
namespace {

class MeasuredTablesTest : public testing::Test {
 protected:
  void SetUp() override {
    const char* shared = std::getenv("FORETOKEN_SHARED");
    if (shared == nullptr) GTEST_SKIP() << "FORETOKEN_SHARED is not set: the measured data is not here";
    data_ = std::string(shared) + "/data/";
    if (!std::ifstream(data_ + "README.md")) GTEST_SKIP() << data_ << " is absent";
  }
  std::string data_;
};

TEST_F(MeasuredTablesTest, EmbeddedTablesStayWithinOnePercentOfTheFullOnes) {
  for (const EmbeddedTable& t : EmbeddedTables()) {
    const std::string path = data_ + "tables/silicon/" + std::string(t.name) + "-tp1.csv";
    const Result<std::string> text = ReadTextFile(path), index = ReadTextFile(data_ + "tables/silicon/index.json");
    ASSERT_TRUE(text.ok() && index.ok());
    const Result<SiliconImport> full = ImportSilicon(*text, path, *index);
    ASSERT_TRUE(full.ok()) << full.error().message;
    const Result<StepTimeTable> thin = ParseStepTable(t.text, t.name);
    ASSERT_TRUE(thin.ok()) << thin.error().message;
    const TableError e = CompareToGrid(*thin, full->grid, std::atoll(std::string(*thin->Note("kv_capacity_tokens")).c_str()));
    EXPECT_LT(e.mean, 0.01) << t.name;
    EXPECT_LT(e.max, 0.031) << t.name;
  }
}

TEST_F(MeasuredTablesTest, ContextBeforeAChunkAddsUpOnTheRowsLeftOut) {
  const std::string path = data_ + "tables/silicon/a100-llama-3.1-8b-tp1.csv";
  const Result<std::string> text = ReadTextFile(path);
  ASSERT_TRUE(text.ok());
  const Result<SiliconImport> import = ImportSilicon(*text, path, "");
  ASSERT_TRUE(import.ok()) << import.error().message;
  EXPECT_EQ(import->left_out, 54);
  EXPECT_LT(import->left_out_mean_error, 0.001);
  EXPECT_LT(import->left_out_max_error, 0.02);
  EXPECT_GT(import->changed, 0);
}

TEST_F(MeasuredTablesTest, ATableFitsRealH100StepsWithinOnePointTwoPercent) {
  for (const char* name : {"codellama-34b", "llama-2-70b"}) {
    const std::string path = data_ + "truth/h100-step-intervals/" + name + "-general.csv";
    const Result<std::string> text = ReadTextFile(path);
    ASSERT_TRUE(text.ok());
    Result<std::vector<StepRecord>> records = ReadStepRecords(*text, path);
    ASSERT_TRUE(records.ok()) << records.error().message;
    const size_t all = records->size(), dropped = DropOutliers(*records);
    EXPECT_LT(dropped, all / 50);
    const Result<std::vector<double>> errors = CrossValidate(*records, FitKind::kTable, 5, 1);
    ASSERT_TRUE(errors.ok()) << errors.error().message;
    double mean = 0;
    for (double e : *errors) mean += e / 5;
    EXPECT_LE(mean, 0.012) << name;
  }
}

TEST_F(MeasuredTablesTest, AProfileReplaysARealRun) {
  for (const char* gpu : {"rtxpro6000", "rtx4090"}) {
    const std::string model = std::string("vllm-") + gpu + "-llama-3.1-8b";
    const Result<accuracy::MeasuredRun> run = accuracy::ReadMeasuredRun(data_ + "truth/" + model, 0);
    ASSERT_TRUE(run.ok()) << run.error().message;
    const Result<VllmProfile> profile = ReadVllmProfile(data_ + "tables/" + model + "-tp1", "");
    ASSERT_TRUE(profile.ok()) << profile.error().message;
    EXPECT_EQ(profile->layer_count, 32);
    const Result<ProfileStepLaw> law = ProfileStepLaw::Make(profile->layers);
    ASSERT_TRUE(law.ok());
    accuracy::StepCost cost;
    cost.nanos = [&law](const StepComposition& step) { return law->NanosOf(step); };
    for (size_t calibrate : {size_t{0}, size_t{30}}) {
      if (calibrate > 0) {
        const Result<double> factor = accuracy::CalibrateFactor(*run, cost, calibrate);
        ASSERT_TRUE(factor.ok());
        cost.factor = *factor;
      }
      const Result<std::vector<accuracy::Served>> served = accuracy::Replay(*run, cost);
      ASSERT_TRUE(served.ok()) << served.error().message;
      const accuracy::Accuracy a = accuracy::Compare(*run, *served, calibrate);
      EXPECT_EQ(a.e2e.requests, 300 - calibrate);
      EXPECT_LT(std::abs(a.e2e.mean_error), 0.02) << gpu << " " << calibrate;
      EXPECT_LT(a.e2e.mape, 0.03) << gpu << " " << calibrate;
      EXPECT_LT(std::abs(a.ttft.mean_error), 0.05) << gpu << " " << calibrate;
    }
  }
}

}  // namespace
}  // namespace foretoken::tables
