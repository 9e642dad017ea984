// Work in order.
#include "support/fake_stream.hpp"

#include <cstring>

namespace spdnn::test {

void FakeStream::State::advance() {
  while (!work.empty() && work.front()()) {
    work.pop_front();
    ++done;
  }
}

/// A point in a stream's order.
class FakeStream::Mark final : public Event {
 public:
  explicit Mark(std::shared_ptr<State> state)
      : state_(std::move(state)),
        after_(state_->done + static_cast<std::int64_t>(state_->work.size())) {}
  [[nodiscard]] bool ready() const override {
    state_->advance();
    return state_->done >= after_;
  }
  void wait() const override {
    while (!ready()) {
    }
  }

 private:
  std::shared_ptr<State> state_;
  std::int64_t after_;
};

void FakeStream::copy(void* to, const void* from, std::size_t bytes) {
  queue([=] {
    std::memcpy(to, from, bytes);
    return true;
  });
}

void FakeStream::zero(void* to, std::size_t bytes) {
  queue([=] {
    std::memset(to, 0, bytes);
    return true;
  });
}

std::unique_ptr<Event> FakeStream::record() { return std::make_unique<Mark>(state_); }

void FakeStream::wait(const Event& event) {
  if (dynamic_cast<const Mark*>(&event) == nullptr) {
    event.wait();  // of another kind of device
    return;
  }
  queue([mark = dynamic_cast<const Mark&>(event)] { return mark.ready(); });
}

void FakeStream::synchronize() { record()->wait(); }

}  // namespace spdnn::test
