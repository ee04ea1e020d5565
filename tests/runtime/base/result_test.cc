#include "runtime/base/result.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

namespace foretoken {
namespace {

Result<int> Half(int x) {
  if (x % 2 != 0) return Error{std::to_string(x) + ": must be even"};
  return x / 2;
}

TEST(ResultTest, HoldsEitherTheValueOrTheErrorsMessage) {
  EXPECT_TRUE(Half(4).ok());
  EXPECT_EQ(*Half(4), 2);
  EXPECT_FALSE(Half(3));
  EXPECT_EQ(Half(3).error().message, "3: must be even");
}

TEST(ResultTest, AResultOfTheErrorTypesOwnShapeKeepsTheTwoApart) {
  Result<std::string> text = std::string("value");
  EXPECT_TRUE(text.ok());
  Result<std::string> error = Error{"no value"};
  EXPECT_FALSE(error.ok());
}

TEST(ResultTest, AMoveOnlyValueCanBeTakenOut) {
  Result<std::unique_ptr<int>> made = std::make_unique<int>(7);
  std::unique_ptr<int> taken = std::move(made).value();
  EXPECT_EQ(*taken, 7);
}

TEST(ResultDeathTest, ReadingTheSideThatIsNotThereIsABugOfOursAndAborts) {
  EXPECT_DEATH((void)Half(3).value(), "CHECK failed: ok\\(\\)");
  EXPECT_DEATH((void)Half(4).error(), "CHECK failed");
  EXPECT_DEATH((void)Status().error(), "CHECK failed");
}

TEST(StatusTest, IsOkUntilAnErrorIsPutIn) {
  EXPECT_TRUE(Status().ok());
  const Status failed = Error{"disk full: free 2 GB"};
  EXPECT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().message, "disk full: free 2 GB");
}

}  // namespace
}  // namespace foretoken
