// Regular expressions in time and memory that grow with the text only linearly and without recursion per character. The
// engines use it instead of std::regex, whose executor recurses once for each character, which ends the process on a long
// run of them, and tries all ways to match, which takes for ever with some expressions: for the pre-tokenizers of
// llama.cpp (patch 21), and wherever a caller gives an expression (patch 23 of llama.cpp, 09 of stable-diffusion.cpp).
//
// The syntax is ECMAScript's without back references; the match is the one of ECMAScript (leftmost, the first alternative
// first), except that a repetition may end with an empty round. A Pike virtual machine searches: all ways to match
// advance together, ordered by priority. Lookaheads need no search: where each of them holds is computed once per text,
// from its end to its begin.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace cyllama {

class linear_regex {
  public:
    using text = std::vector<uint32_t>;

    explicit linear_regex(const std::string & pattern) : linear_regex(bytes(pattern)) {}

    explicit linear_regex(const text & pattern) : pattern(pattern) {
        const size_t first = alternatives();
        if (at != pattern.size()) {
            fail("an unexpected ')'");
        }
        entry = first;
        emit({MATCH, 0, 0});
        seen.resize(program.size(), 0);
        find_beginnings();
    }

    // Lengths of the parts of text[begin, end): matches, and what is between them.
    void split(const text & string, size_t begin, size_t end, std::vector<size_t> & lengths) {
        subject = &string;
        from = begin;
        to = end;
        holds.clear();
        size_t last = begin, start = begin;
        bool after_empty = false; // std::regex_iterator: at the same place only a longer match counts, and no search
        while (start <= end) {
            std::pair<size_t, size_t> match;
            if (!search(start, after_empty, match)) {
                if (!after_empty) {
                    break;
                }
                after_empty = false;
                start++;
                continue;
            }
            if (match.first > last) {
                lengths.push_back(match.first - last);
            }
            lengths.push_back(match.second - match.first);
            last = start = match.second;
            after_empty = match.first == match.second;
        }
        if (last < end) {
            lengths.push_back(end - last);
        }
    }

    // The first match in a string; false if there is none. `whole`: only a match of all of it. `groups` are the places of
    // the match and of its groups, begin and end; the groups without a part in it have npos.
    bool find(const std::string & string, bool whole, std::vector<std::pair<size_t, size_t>> & groups) {
        const text characters = bytes(string);
        subject = &characters;
        from = 0;
        to = characters.size();
        holds.clear();
        std::pair<size_t, size_t> match = {0, to};
        if (!whole && !search(0, false, match)) {
            return false;
        }
        return capture(match.first, match.second, groups);
    }

    bool search(const std::string & string) {
        std::vector<std::pair<size_t, size_t>> groups;
        return find(string, false, groups);
    }

  private:
    static constexpr size_t FOUND = SIZE_MAX, LONG = 64, MAX_DEPTH = 100, MAX_SIZE = 100000;

    // SAVE does nothing but in `capture`.
    enum op { CHARACTER, SPLIT, JUMP, LOOK, NOT_LOOK, WORD_BOUNDARY, NOT_WORD_BOUNDARY, BEGIN, END, SAVE, MATCH };

    struct instruction {
        op     what;
        size_t x; // CHARACTER: the class. SPLIT: preferred. JUMP: target. LOOK: its program. SAVE: 2 * group, + 1: its end
        size_t y; // SPLIT: otherwise. LOOK: the instruction after its program
    };

    struct character_class {
        bool negated = false;
        std::vector<std::pair<uint32_t, uint32_t>> ranges;
        std::vector<bool> small = std::vector<bool>(256);

        void add(uint32_t low, uint32_t high) {
            ranges.emplace_back(low, high);
            for (uint32_t c = low; c <= high && c < 256; c++) {
                small[c] = true;
            }
        }

        bool contains(uint32_t c) const {
            if (c < 256) {
                return small[c] != negated;
            }
            for (const auto & range : ranges) {
                if (range.first <= c && c <= range.second) {
                    return !negated;
                }
            }
            return negated;
        }
    };

    struct thread {
        size_t pc;
        size_t start;
    };

    // ------------------------------------------------------------------------------------------------- compiling

    text pattern;
    size_t at = 0;
    size_t depth = 0, emitted = 0, n_groups = 0;
    std::vector<instruction> program;
    std::vector<character_class> classes;
    size_t entry = 0;
    std::vector<bool> begins = std::vector<bool>(256); // the characters that a match may begin with
    bool may_be_empty = false;

    void find_beginnings() {
        std::vector<bool> visited(program.size());
        std::vector<size_t> open = {entry};
        while (!open.empty()) {
            const size_t pc = open.back();
            open.pop_back();
            if (visited[pc]) {
                continue;
            }
            visited[pc] = true;
            const instruction & i = program[pc];
            switch (i.what) {
                case CHARACTER:
                    for (uint32_t c = 0; c < 256; c++) {
                        begins[c] = begins[c] || classes[i.x].contains(c);
                    }
                    break;
                case MATCH: may_be_empty = true; break;
                case JUMP: open.push_back(i.x); break;
                case SPLIT:
                    open.push_back(i.x);
                    open.push_back(i.y);
                    break;
                case LOOK:
                case NOT_LOOK: open.push_back(i.y); break;
                default: open.push_back(pc + 1);
            }
        }
    }

    [[noreturn]] void fail(const char * what) const {
        throw std::runtime_error(std::string("the regular expression has ") + what);
    }

    static text bytes(const std::string & s) {
        text result;
        result.reserve(s.size());
        for (char c : s) {
            result.push_back((unsigned char) c);
        }
        return result;
    }

    bool more() const { return at < pattern.size(); }
    bool next_is(const char * s) const {
        size_t i = at;
        for (; *s; s++, i++) {
            if (i >= pattern.size() || pattern[i] != (unsigned char) *s) {
                return false;
            }
        }
        return true;
    }
    uint32_t take() {
        if (!more()) {
            fail("no end");
        }
        return pattern[at++];
    }

    size_t emit(instruction i) {
        if (++emitted > MAX_SIZE) { // all that was ever emitted: a repetition compiles its atom again
            fail("too many characters or repetitions");
        }
        program.push_back(i);
        return program.size() - 1;
    }

    // Each of these compiles what begins at `at`, so that control falls out behind it; the result is its first
    // instruction.
    size_t alternatives() {
        const size_t first = program.size();
        std::vector<size_t> ends;
        while (true) {
            const size_t branch = emit({SPLIT, program.size() + 1, 0});
            sequence();
            if (!more() || pattern[at] != '|') {
                program[branch] = {JUMP, branch + 1, 0}; // the last one has no other
                break;
            }
            at++;
            ends.push_back(emit({JUMP, 0, 0}));
            program[branch].y = program.size();
        }
        for (size_t end : ends) {
            program[end].x = program.size();
        }
        return first;
    }

    void sequence() {
        while (more() && pattern[at] != '|' && pattern[at] != ')') {
            const size_t source = at, code = program.size(), groups = n_groups;
            atom();
            size_t low = 1, high = 1;
            bool lazy = false;
            if (!quantifier(low, high, lazy)) {
                continue;
            }
            const size_t after = at;
            program.resize(code);
            const auto again = [&] {
                at = source;
                n_groups = groups;
                atom();
            };
            for (size_t i = 0; i < low; i++) {
                again();
            }
            if (high == SIZE_MAX) {
                const size_t loop = emit({SPLIT, program.size() + 1, 0});
                again();
                emit({JUMP, loop, 0});
                leave(loop, lazy);
            } else {
                std::vector<size_t> exits;
                for (size_t i = low; i < high; i++) {
                    exits.push_back(emit({SPLIT, program.size() + 1, 0}));
                    again();
                }
                for (size_t exit : exits) {
                    leave(exit, lazy);
                }
            }
            if (high == 0) {
                again(); // counts its groups
                program.resize(code);
            }
            at = after;
        }
    }

    // Sets where a repetition is left: here. A lazy one prefers that.
    void leave(size_t split, bool lazy) {
        program[split].y = program.size();
        if (lazy) {
            std::swap(program[split].x, program[split].y);
        }
    }

    bool quantifier(size_t & low, size_t & high, bool & lazy) {
        if (!more()) {
            return false;
        }
        switch (pattern[at]) {
            case '*': at++; low = 0; high = SIZE_MAX; break;
            case '+': at++; low = 1; high = SIZE_MAX; break;
            case '?': at++; low = 0; high = 1; break;
            case '{':
                at++;
                low = high = number();
                if (next_is(",")) {
                    at++;
                    high = next_is("}") ? SIZE_MAX : number();
                }
                if (take() != '}' || high < low) {
                    fail("a wrong repetition");
                }
                break;
            default: return false;
        }
        lazy = next_is("?");
        at += lazy;
        return true;
    }

    size_t number() {
        size_t value = 0;
        if (!more() || pattern[at] < '0' || pattern[at] > '9') {
            fail("a wrong repetition");
        }
        while (more() && pattern[at] >= '0' && pattern[at] <= '9') {
            value = value * 10 + (pattern[at++] - '0');
            if (value > 1000) {
                fail("a repetition above 1000");
            }
        }
        return value;
    }

    void atom() {
        const uint32_t c = take();
        if (c == '(') {
            group();
        } else if (c == '[') {
            set();
        } else if (c == '$') {
            emit({END, 0, 0});
        } else if (c == '^') {
            emit({BEGIN, 0, 0});
        } else if (c == '.') {
            character_class any;
            any.negated = true;
            any.add('\n', '\n');
            any.add('\r', '\r');
            add_class(any);
        } else if (c == '\\' && next_is("b")) {
            at++;
            emit({WORD_BOUNDARY, 0, 0});
        } else if (c == '\\' && next_is("B")) {
            at++;
            emit({NOT_WORD_BOUNDARY, 0, 0});
        } else if (c == '\\') {
            character_class one;
            escape(one);
            add_class(one);
        } else if (c == '*' || c == '+' || c == '?' || c == '{') {
            fail("a quantifier without anything before it");
        } else {
            character_class one;
            one.add(c, c);
            add_class(one);
        }
    }

    void group() {
        size_t look = SIZE_MAX, number = SIZE_MAX;
        if (++depth > MAX_DEPTH) {
            fail("too many groups in groups");
        }
        if (next_is("?:")) {
            at += 2;
        } else if (next_is("?=") || next_is("?!")) {
            look = emit({pattern[at + 1] == '=' ? LOOK : NOT_LOOK, program.size() + 1, 0});
            at += 2;
        } else if (next_is("?")) {
            fail("a group that is not supported");
        } else {
            number = ++n_groups;
            emit({SAVE, 2 * number, 0});
        }
        alternatives();
        if (take() != ')') {
            fail("a group without an end");
        }
        depth--;
        if (number != SIZE_MAX) {
            emit({SAVE, 2 * number + 1, 0});
        }
        if (look != SIZE_MAX) {
            emit({MATCH, 0, 0});
            program[look].y = program.size();
        }
    }

    void add_class(const character_class & c) {
        classes.push_back(c);
        emit({CHARACTER, classes.size() - 1, 0});
    }

    // A class such as \s, or one character; what follows the backslash is at `at`. The character, or UINT32_MAX.
    uint32_t escape(character_class & into) {
        const uint32_t c = take();
        uint32_t one = c;
        switch (c) {
            case 's': into.add('\t', '\r'); into.add(' ', ' '); return UINT32_MAX;
            case 'w': into.add('0', '9'); into.add('A', 'Z'); into.add('_', '_'); into.add('a', 'z'); return UINT32_MAX;
            case 'W':
                into.add(0, '0' - 1); into.add('9' + 1, 'A' - 1); into.add('Z' + 1, '_' - 1); into.add('_' + 1, 'a' - 1);
                into.add('z' + 1, UINT32_MAX);
                return UINT32_MAX;
            case 'D': into.add(0, '0' - 1); into.add('9' + 1, UINT32_MAX); return UINT32_MAX;
            case 'S': into.add(0, '\t' - 1); into.add('\r' + 1, ' ' - 1); into.add(' ' + 1, UINT32_MAX); return UINT32_MAX;
            case 'd': into.add('0', '9'); return UINT32_MAX;
            case 'n': one = '\n'; break;
            case 'r': one = '\r'; break;
            case 't': one = '\t'; break;
            case 'f': one = '\f'; break;
            case 'v': one = '\v'; break;
            case '0': one = 0; break;
            case 'x': one = hexadecimal(2); break;
            case 'u': one = hexadecimal(4); break;
            default:
                if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')) {
                    fail("an escape that is not supported");
                }
        }
        into.add(one, one);
        return one;
    }

    uint32_t hexadecimal(int digits) {
        uint32_t value = 0;
        for (int i = 0; i < digits; i++) {
            const uint32_t c = take();
            if (c >= '0' && c <= '9') {
                value = 16 * value + (c - '0');
            } else if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')) {
                value = 16 * value + (c | 0x20) - 'a' + 10;
            } else {
                fail("a wrong hexadecimal number");
            }
        }
        return value;
    }

    // A class such as [:alpha:] in a set, whose '[' has been taken; false if it is none.
    bool named_class(character_class & into) {
        static const std::map<std::string, std::vector<std::pair<uint32_t, uint32_t>>> names = {
            {"alpha", {{'A', 'Z'}, {'a', 'z'}}}, {"digit", {{'0', '9'}}}, {"upper", {{'A', 'Z'}}}, {"lower", {{'a', 'z'}}},
            {"alnum", {{'0', '9'}, {'A', 'Z'}, {'a', 'z'}}}, {"space", {{'\t', '\r'}, {' ', ' '}}},
            {"blank", {{'\t', '\t'}, {' ', ' '}}}, {"xdigit", {{'0', '9'}, {'A', 'F'}, {'a', 'f'}}},
            {"punct", {{'!', '/'}, {':', '@'}, {'[', '`'}, {'{', '~'}}}, {"cntrl", {{0, 31}, {127, 127}}},
            {"print", {{' ', '~'}}}, {"graph", {{'!', '~'}}},
        };
        for (const auto & name : names) {
            if (next_is((":" + name.first + ":]").c_str())) {
                at += name.first.size() + 3;
                for (const auto & range : name.second) {
                    into.add(range.first, range.second);
                }
                return true;
            }
        }
        if (next_is(":") || next_is(".") || next_is("=")) {
            fail("a class that is not supported");
        }
        return false;
    }

    void set() {
        character_class found;
        if (next_is("^")) {
            at++;
            found.negated = true;
        }
        while (true) {
            uint32_t low = take();
            if (low == ']') {
                break;
            }
            if (low == '[' && named_class(found)) {
                continue;
            }
            if (low == '\\' && next_is("b")) {
                at++;
                low = '\b';
            } else if (low == '\\') {
                character_class part;
                low = escape(part);
                if (low == UINT32_MAX) {
                    for (const auto & range : part.ranges) {
                        found.add(range.first, range.second);
                    }
                    continue;
                }
            }
            uint32_t high = low;
            if (next_is("-") && at + 1 < pattern.size() && pattern[at + 1] != ']') {
                at++;
                high = take();
                if (high == '\\') {
                    character_class part;
                    high = escape(part);
                }
                if (high == UINT32_MAX || high < low) {
                    fail("a wrong range");
                }
            }
            found.add(low, high);
        }
        add_class(found);
    }

    // -------------------------------------------------------------------------------------------------- matching

    const text * subject = nullptr;
    size_t from = 0, to = 0;
    std::map<size_t, std::vector<bool>> holds; // of each lookahead: where it is true, by place - from
    std::vector<thread> now, next;
    std::vector<size_t> seen, stack;
    size_t round = 0;

    static bool is_word(uint32_t c) {
        return c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    }

    bool condition(const instruction & i, size_t place) {
        switch (i.what) {
            case BEGIN: return place == from;
            case END: return place == to;
            case SAVE: return true;
            case WORD_BOUNDARY:
            case NOT_WORD_BOUNDARY: {
                const bool before = place > from && is_word((*subject)[place - 1]);
                const bool after = place < to && is_word((*subject)[place]);
                return (before != after) == (i.what == WORD_BOUNDARY);
            }
            default: return lookahead(i)[place - from] == (i.what == LOOK);
        }
    }

    // Where the program of a lookahead matches: from the last place to the first, what each instruction can reach.
    const std::vector<bool> & lookahead(const instruction & look) {
        auto found = holds.find(look.x);
        if (found != holds.end()) {
            return found->second;
        }
        const size_t first = look.x, size = look.y - look.x;
        std::vector<bool> result(to - from + 1), after(size), here(size);
        for (size_t place = to + 1; place-- > from;) {
            here.assign(size, false);
            for (bool changed = true; changed;) { // again while loops go back
                changed = false;
                for (size_t pc = size; pc-- > 0;) {
                    if (here[pc]) {
                        continue;
                    }
                    const instruction & i = program[first + pc];
                    bool reaches = false;
                    switch (i.what) {
                        case MATCH: reaches = true; break;
                        case CHARACTER:
                            reaches = place < to && classes[i.x].contains((*subject)[place]) && after[pc + 1];
                            break;
                        case SPLIT: reaches = here[i.x - first] || here[i.y - first]; break;
                        case JUMP: reaches = here[i.x - first]; break;
                        case LOOK:
                        case NOT_LOOK: reaches = here[i.y - first] && condition(i, place); break;
                        default: reaches = here[pc + 1] && condition(i, place);
                    }
                    if (reaches) {
                        here[pc] = changed = true;
                    }
                }
            }
            result[place - from] = here[0];
            std::swap(here, after);
        }
        return holds.emplace(look.x, std::move(result)).first->second;
    }

    // Adds a thread and all it leads to without a character, the preferred first.
    void add(std::vector<thread> & list, size_t pc, size_t start, size_t place) {
        stack.assign(1, pc);
        while (!stack.empty()) {
            pc = stack.back();
            stack.pop_back();
            if (seen[pc] == round) {
                continue;
            }
            seen[pc] = round;
            const instruction & i = program[pc];
            switch (i.what) {
                case CHARACTER:
                case MATCH: list.push_back({pc, start}); break;
                case JUMP: stack.push_back(i.x); break;
                case SPLIT:
                    stack.push_back(i.y);
                    stack.push_back(i.x);
                    break;
                case LOOK:
                case NOT_LOOK:
                    if (condition(i, place)) {
                        stack.push_back(i.y);
                    }
                    break;
                default:
                    if (condition(i, place)) {
                        stack.push_back(pc + 1);
                    }
            }
        }
    }

    // The first match from `start` on; with `longer`, only one that begins at `start` and is not empty.
    bool search(size_t start, bool longer, std::pair<size_t, size_t> & match) {
        // Nearly always there is a match at `start`, or soon after it: trying one place after the other is quickest
        // then. When a place takes long and has no match, all that follow are tried at once, which bounds the time.
        for (size_t place = start; place <= to; place++) {
            if (place < to && !may_begin((*subject)[place])) {
                if (longer) {
                    return false;
                }
                continue;
            }
            const size_t tried = simulate(place, true, longer, match);
            if (tried == FOUND) {
                return true;
            }
            if (longer) {
                return false;
            }
            if (tried > LONG) {
                return simulate(place + 1, false, false, match) == FOUND;
            }
        }
        return false;
    }

    bool may_begin(uint32_t c) const {
        return may_be_empty || (c < 256 ? begins[c] : true);
    }

    // FOUND, or how many characters were read without a match. `here`: only matches that begin at `start`.
    size_t simulate(size_t start, bool here, bool longer, std::pair<size_t, size_t> & match) {
        bool matched = false;
        size_t place = start;
        now.clear();
        round++; // marks what is already in `now`
        for (; place <= to; place++) {
            if (!matched && (!here || place == start)) {
                add(now, entry, place, place);
            }
            if (now.empty() && (matched || here)) {
                break;
            }
            next.clear();
            round++;
            for (const thread & t : now) {
                const instruction & i = program[t.pc];
                if (i.what == MATCH) {
                    if (longer && t.start == place) {
                        continue;
                    }
                    match = {t.start, place};
                    matched = true;
                    break; // what follows is not preferred
                }
                if (place < to && classes[i.x].contains((*subject)[place])) {
                    add(next, t.pc + 1, t.start, place + 1);
                }
            }
            std::swap(now, next);
        }
        return matched ? FOUND : place - start;
    }

    struct capturing_thread {
        size_t pc;
        std::vector<size_t> saved; // begin and end of each group
    };

    // The groups of the preferred match of subject[start, end); false if it does not match.
    bool capture(size_t start, size_t end, std::vector<std::pair<size_t, size_t>> & groups) {
        std::vector<capturing_thread> here, after, open;
        const auto follow = [&](std::vector<capturing_thread> & list, capturing_thread first, size_t place) {
            open.assign(1, std::move(first));
            while (!open.empty()) {
                capturing_thread t = std::move(open.back());
                open.pop_back();
                if (seen[t.pc] == round) {
                    continue;
                }
                seen[t.pc] = round;
                const instruction & i = program[t.pc];
                if (i.what == CHARACTER || i.what == MATCH) {
                    list.push_back(std::move(t));
                } else if (i.what == JUMP) {
                    open.push_back({i.x, std::move(t.saved)});
                } else if (i.what == SPLIT) {
                    open.push_back({i.y, t.saved});
                    open.push_back({i.x, std::move(t.saved)});
                } else if (condition(i, place)) {
                    if (i.what == SAVE) {
                        t.saved[i.x] = place;
                    }
                    open.push_back({i.what == LOOK || i.what == NOT_LOOK ? i.y : t.pc + 1, std::move(t.saved)});
                }
            }
        };
        round++;
        follow(here, {entry, std::vector<size_t>(2 * (n_groups + 1), std::string::npos)}, start);
        for (size_t place = start; place < end; place++) {
            after.clear();
            round++;
            for (capturing_thread & t : here) {
                const instruction & i = program[t.pc];
                if (i.what == CHARACTER && classes[i.x].contains((*subject)[place])) {
                    follow(after, {t.pc + 1, std::move(t.saved)}, place + 1);
                }
            }
            std::swap(here, after);
        }
        for (const capturing_thread & t : here) {
            if (program[t.pc].what == MATCH) {
                groups.assign(1, {start, end});
                for (size_t i = 1; i <= n_groups; i++) {
                    groups.push_back({t.saved[2 * i], t.saved[2 * i + 1]});
                }
                return true;
            }
        }
        return false;
    }
};

} // namespace cyllama
