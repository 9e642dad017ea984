// A stream of a device that is not there: its memory is host memory, and its work waits until
// somebody looks.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <utility>

#include "spdnn/device.hpp"

namespace spdnn::test {

/// A stream whose work is tried in order whenever anything asks for it.
class FakeStream final : public Stream {
 public:
  /// Does its part if it can; whether it is done.
  using Work = std::function<bool()>;
  void queue(Work work) { state_->work.push_back(std::move(work)); }
  void copy(void* to, const void* from, std::size_t bytes) override;
  void zero(void* to, std::size_t bytes) override;
  std::unique_ptr<Event> record() override;
  void wait(const Event& event) override;
  void synchronize() override;
  void* native() override { return this; }

 private:
  struct State {
    std::deque<Work> work;
    std::int64_t done = 0;
    void advance();
  };
  class Mark;
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace spdnn::test
