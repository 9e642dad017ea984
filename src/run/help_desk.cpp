// Offers, claims and parcels as letters.
#include "help_desk.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "message_crew.hpp"

namespace spdnn {
namespace {

enum Topic : int { topic_question = 18, topic_answer = 19, topic_parcel = 20, topic_idle = 21 };

template <class T>
std::vector<std::byte> letter_for(std::int32_t rank, std::span<const T> content) {
  std::vector<std::byte> letter(sizeof rank + content.size_bytes());
  std::memcpy(letter.data(), &rank, sizeof rank);
  if (!content.empty()) {
    std::memcpy(letter.data() + sizeof rank, content.data(), content.size_bytes());
  }
  return letter;
}

}  // namespace

HelpDesk::HelpDesk(const Job& job, std::vector<double> speeds)
    : world_(job.world),
      roster_(std::move(speeds), false, [this](const IdleRanks& idle) { tell_idle(idle); }) {
  const std::int64_t own = job.here.size();
  const auto counts = gather_bytes(world_.processes(), std::as_bytes(std::span(&own, 1)));
  for (std::size_t p = 0; p < counts.size(); ++p) {
    std::int64_t count = 0;
    std::memcpy(&count, counts[p].data(), sizeof count);
    process_of_.insert(process_of_.end(), static_cast<std::size_t>(count), static_cast<int>(p));
  }
  if (job.leads()) {
    proxies_.resize(process_of_.size());
    try {
      for (std::size_t rank = 0; rank < proxies_.size(); ++rank) {
        proxies_[rank].thread = std::thread([this, rank] { run_proxy(rank); });
      }
    } catch (...) {
      end_proxies();  // threads that nobody joins would end the process
      throw;
    }
  }
  serve_letters();
}

HelpDesk::~HelpDesk() {
  for (int topic = topic_question; topic <= topic_idle; ++topic) world_.serve(topic, nullptr);
  end_proxies();
}

void HelpDesk::end_proxies() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  asked_.notify_all();
  roster_.abort("the run is over");
  for (Proxy& proxy : proxies_) {
    if (proxy.thread.joinable()) proxy.thread.join();
  }
}

void HelpDesk::serve_letters() {
  const auto keep = [this](auto& letters) {
    return [this, &letters](int /*from*/, std::span<const std::byte> letter) {
      std::int32_t rank = 0;
      std::memcpy(&rank, letter.data(), sizeof rank);
      const std::lock_guard lock(mutex_);
      letters[rank].emplace_back(letter.begin() + sizeof rank, letter.end());
    };
  };
  world_.serve(topic_answer, keep(answers_));
  world_.serve(topic_parcel, keep(parcels_));
  world_.serve(topic_idle, [this](int /*from*/, std::span<const std::byte> letter) {
    IdleRanks idle;
    std::memcpy(&idle, letter.data(), sizeof idle);
    fastest_idle_ = idle.fastest;
    idle_ = static_cast<int>(idle.count);
  });
  world_.serve(topic_question, [this](int /*from*/, std::span<const std::byte> letter) {
    Question question;
    std::memcpy(&question, letter.data(), sizeof question);
    {
      const std::lock_guard lock(mutex_);
      proxies_[question.rank].questions.push_back(question);
    }
    asked_.notify_all();
  });
}

void HelpDesk::ask(const Question& question) {
  world_.send(0, topic_question, std::as_bytes(std::span(&question, 1)));
}

void HelpDesk::post(int rank, std::vector<std::byte> parcel) {
  world_.send(process_of_[rank], topic_parcel,
              letter_for<std::byte>(rank, std::span<const std::byte>(parcel)));
}

std::vector<std::byte> HelpDesk::take(std::map<int, std::deque<std::vector<std::byte>>>& letters,
                                      Communicator& comm) {
  std::vector<std::byte> letter;
  world_.wait_until(comm, [&] {
    const std::lock_guard lock(mutex_);
    auto& of_rank = letters[comm.rank()];
    if (of_rank.empty()) return false;
    letter = std::move(of_rank.front());
    of_rank.pop_front();
    return true;
  });
  return letter;
}

std::vector<std::int64_t> HelpDesk::answer(Communicator& comm) {
  const std::vector<std::byte> letter = take(answers_, comm);
  std::vector<std::int64_t> numbers(letter.size() / sizeof(std::int64_t));
  if (!numbers.empty()) std::memcpy(numbers.data(), letter.data(), letter.size());
  return numbers;
}

std::vector<std::byte> HelpDesk::parcel(Communicator& comm) { return take(parcels_, comm); }

void HelpDesk::tell_idle(const IdleRanks& idle) {
  for (int p = 0; p < world_.processes().size(); ++p) {
    world_.send(p, topic_idle, std::as_bytes(std::span(&idle, 1)));
  }
}

/// Asks the roster in the name of one rank, until the desk closes.
void HelpDesk::run_proxy(std::size_t rank) {
  for (;;) {
    Question question;
    {
      std::unique_lock lock(mutex_);
      auto& questions = proxies_[rank].questions;
      asked_.wait(lock, [&] { return over_ || !questions.empty(); });
      if (questions.empty()) return;
      question = questions.front();
      questions.pop_front();
    }
    try {
      if (const auto numbers = settle(question)) {
        world_.send(process_of_[rank], topic_answer,
                    letter_for<std::int64_t>(question.rank, std::span(*numbers)));
      }
    } catch (const CommError&) {  // the desk closes, or the processes are lost
      return;
    }
  }
}

/// The answer to a question that has one.
std::optional<std::vector<std::int64_t>> HelpDesk::settle(const Question& question) {
  switch (question.kind) {
    case Kind::offer: {
      const std::optional<Assignment> given = roster_.offer(question.rank, nullptr);
      if (!given) return std::vector<std::int64_t>{};
      if (const auto* place = std::get_if<Membership>(&*given)) {
        return std::vector{static_cast<std::int64_t>(place->member)};
      }
      const auto& parcel = std::get<Parcel>(*given);
      return std::vector{static_cast<std::int64_t>(parcel.segment), parcel.images};
    }
    case Kind::claim: {
      std::vector<std::int64_t> ranks;
      for (const Roster::Helper& helper :
           roster_.claim(question.rank, static_cast<std::size_t>(question.number))) {
        ranks.push_back(helper.rank);
      }
      return ranks;
    }
    case Kind::give:
      roster_.give({question.helper, nullptr}, Parcel{question.segment, question.images});
      break;
    case Kind::enlist:
      roster_.give({question.helper, nullptr},
                   Membership{nullptr, static_cast<std::size_t>(question.number)});
      break;
    case Kind::remaining: roster_.tell_remaining(question.rank, question.seconds); break;
  }
  return std::nullopt;
}

DeskRoster::DeskRoster(HelpDesk& desk, const PassContext& context, Communicator& comm,
                       Device& device)
    : desk_(desk), context_(context), comm_(comm), device_(device) {}

/// A parcel's activations in slots.
Panels<float> DeskRoster::panels(const Slots& slots, const Parcel& parcel) const {
  const std::int64_t layer = context_.plan->segments[parcel.segment].first;
  return {slots.activations.as<float>(), layer_inputs(context_.model->layers[layer]), parcel.images,
          panel_width(device_.info()), nullptr};
}

std::optional<Assignment> DeskRoster::offer(int rank, Slots* landing) {
  HelpDesk::Question question;
  question.kind = HelpDesk::Kind::offer;
  question.rank = rank;
  desk_.ask(question);
  const std::vector<std::int64_t> answer = desk_.answer(comm_);
  if (answer.empty()) return std::nullopt;
  const std::vector<std::byte> letter = desk_.parcel(comm_);
  if (answer.size() == 1) {
    std::vector<int> members(letter.size() / sizeof(int));
    std::memcpy(members.data(), letter.data(), letter.size());
    return Membership{join(members, std::vector<double>(members.size(), 1.0)),
                      static_cast<std::size_t>(answer[0])};
  }
  const Parcel parcel = {static_cast<std::size_t>(answer[0]), answer[1]};
  const std::size_t ids = static_cast<std::size_t>(parcel.images) * sizeof(std::int32_t);
  std::memcpy(landing->ids.data(), letter.data(), ids);
  std::memcpy(landing->activations.data(), letter.data() + ids, letter.size() - ids);
  return parcel;
}

void DeskRoster::tell_remaining(int rank, double seconds) {
  // It is weighed when somebody waits. Until then about the most that it may be is enough, and a
  // letter after each segment would take longer than all help saves.
  constexpr double kAbout = 1.25;
  if (idle() == 0 && seconds <= kAbout * told_s_) return;
  told_s_ = seconds;
  HelpDesk::Question question;
  question.kind = HelpDesk::Kind::remaining;
  question.rank = rank;
  question.seconds = seconds;
  desk_.ask(question);
}

std::vector<Roster::Helper> DeskRoster::claim(int rank, std::size_t most) {
  HelpDesk::Question question;
  question.kind = HelpDesk::Kind::claim;
  question.rank = rank;
  question.number = static_cast<std::int64_t>(most);
  desk_.ask(question);
  if (!outbox_) {
    std::int64_t features = context_.model->inputs();
    for (const Layer& layer : context_.model->layers) {
      features = std::max(features, layer_outputs(layer));
    }
    // A pool takes what is left of a batch.
    outbox_.emplace(device_, features, 2 * context_.plan->batch[rank]);
  }
  std::vector<Helper> helpers;
  for (const std::int64_t helper : desk_.answer(comm_)) {
    helpers.push_back({static_cast<int>(helper), &*outbox_});
  }
  return helpers;
}

std::vector<Roster::Helper> DeskRoster::claim_all(int /*rank*/) {
  throw CommError("ranks of several processes are not claimed together");
}

void DeskRoster::give(const Helper& helper, const Assignment& assignment) {
  const auto& parcel = std::get<Parcel>(assignment);
  const Panels<float> activations = panels(*helper.landing, parcel);
  const std::size_t ids = static_cast<std::size_t>(parcel.images) * sizeof(std::int32_t);
  const std::size_t values = static_cast<std::size_t>(activations.size()) * sizeof(float);
  std::vector<std::byte> letter(ids + values);
  std::memcpy(letter.data(), helper.landing->ids.data(), ids);
  std::memcpy(letter.data() + ids, activations.data, values);
  desk_.post(helper.rank, std::move(letter));
  HelpDesk::Question question;
  question.kind = HelpDesk::Kind::give;
  question.rank = comm_.rank();
  question.helper = helper.rank;
  question.segment = parcel.segment;
  question.images = parcel.images;
  desk_.ask(question);
}

/// This rank's end of a crew of `members`.
std::shared_ptr<Crew> DeskRoster::join(const std::vector<int>& members,
                                       const std::vector<double>& speeds) {
  return std::make_shared<MessageCrew>(desk_.among(comm_, members), speeds);
}

std::shared_ptr<Crew> DeskRoster::form_crew(int leader, const std::vector<Helper>& helpers,
                                            const std::vector<double>& speeds) {
  std::vector<int> members = {leader};
  for (const Helper& helper : helpers) members.push_back(helper.rank);
  const auto letter = std::as_bytes(std::span(members));
  for (std::size_t h = 0; h < helpers.size(); ++h) {
    desk_.post(helpers[h].rank, {letter.begin(), letter.end()});
    HelpDesk::Question question;
    question.kind = HelpDesk::Kind::enlist;
    question.rank = leader;
    question.helper = helpers[h].rank;
    question.number = static_cast<std::int64_t>(h + 1);
    desk_.ask(question);
  }
  return join(members, member_speeds(leader, helpers, speeds));
}

}  // namespace spdnn
