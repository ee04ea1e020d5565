// Every file that ships is accepted, and every file in configs/invalid gets exactly the message that its first line expects.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "configs/any_config.h"
#include "configs/config_tree.h"

namespace foretoken {
namespace {

std::vector<std::string> YamlFilesIn(const std::string& folder) {
  std::vector<std::string> files;
  if (!std::filesystem::exists(folder)) return files;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".yaml") files.push_back(entry.path().string());
  std::sort(files.begin(), files.end());
  return files;
}

TEST(ShippedFilesTest, EveryFileIsAcceptedAndOfItsFoldersKind) {
  const std::pair<std::string, size_t> folders[] = {
      {"configs/topologies", 0}, {"configs/faults", 1}, {"configs/workloads", 2}, {"configs/experiments", 3}};
  size_t files = 0;
  for (const auto& [folder, kind] : folders) {
    for (const std::string& file : YamlFilesIn(folder)) {
      SCOPED_TRACE(file);
      const ConfigResult<AnyConfig> config = LoadAnyConfig(file);
      ASSERT_TRUE(config.ok()) << config.errors().ToString();
      EXPECT_EQ(config->index(), kind);
      ++files;
    }
  }
  EXPECT_GE(files, 20u) << "the files are where the test looks for them";
}

TEST(ShippedFilesTest, EachFaultPlanIsNamedAsItsFile) {
  for (const std::string& file : YamlFilesIn("configs/faults"))
    EXPECT_EQ(std::get<FaultPlan>(*LoadAnyConfig(file)).name, std::filesystem::path(file).stem().string());
}

TEST(ShippedFilesTest, EachMistakeGetsTheMessageThatItsFileExpects) {
  const std::string prefix = "# expect: ";
  const std::vector<std::string> files = YamlFilesIn("configs/invalid");
  EXPECT_GE(files.size(), 50u);
  for (const std::string& file : files) {
    SCOPED_TRACE(file);
    const Result<std::string> text = ReadConfigFile(file);
    ASSERT_TRUE(text.ok());
    const std::string first = text->substr(0, text->find('\n'));
    ASSERT_EQ(first.substr(0, prefix.size()), prefix);
    const ConfigResult<AnyConfig> config = LoadAnyConfig(file);
    ASSERT_FALSE(config.ok()) << "accepted";
    EXPECT_EQ(config.errors().ToString(), file + ":" + first.substr(prefix.size()) + "\n");
  }
}

TEST(ShippedFilesTest, EveryTopologyTakesEveryFaultPlanButNoneThatItsInstancesMiss) {
  for (const std::string& topology : YamlFilesIn("configs/topologies")) {
    for (const std::string& plan : YamlFilesIn("configs/faults")) {
      const ConfigResult<AnyConfig> config = LoadAnyConfig(topology, {"faults=" + plan});
      EXPECT_TRUE(config.ok()) << topology << ": " << config.errors().ToString();
    }
  }
}

}  // namespace
}  // namespace foretoken
