// Compares linear_regex with std::regex on random texts. Each line of the standard input is `narrow` or `wide` (the parts
// of a text) or `groups` (a search and a match of the whole text), the number of characters of an expression, and the
// characters as numbers. Prints each difference.
#include "linear_regex.hpp"

#include <cstdint>
#include <iostream>
#include <random>
#include <regex>
#include <string>
#include <vector>

template <typename CharT> std::vector<uint32_t> numbers(const std::basic_string<CharT> & s) {
    std::vector<uint32_t> result;
    for (CharT c : s) {
        result.push_back(sizeof(CharT) == 1 ? (unsigned char) c : (uint32_t) c);
    }
    return result;
}

template <typename CharT>
std::vector<size_t> expected(const std::basic_string<CharT> & text, const std::basic_regex<CharT> & regex) {
    std::vector<size_t> lengths;
    std::regex_iterator<typename std::basic_string<CharT>::const_iterator> it(text.begin(), text.end(), regex), end;
    size_t last = 0;
    for (; it != end; ++it) {
        const size_t place = it->position();
        if (place > last) {
            lengths.push_back(place - last);
        }
        lengths.push_back(it->length());
        last = place + it->length();
    }
    if (last < text.size()) {
        lengths.push_back(text.size() - last);
    }
    return lengths;
}

template <typename CharT> int compare(const std::basic_string<CharT> & pattern, const std::vector<uint32_t> & alphabet) {
    const std::basic_regex<CharT> regex(pattern, std::regex_constants::optimize | std::regex_constants::nosubs);
    cyllama::linear_regex own(numbers(pattern));
    std::mt19937 random(1);
    int different = 0;
    for (int round = 0; round < 400; round++) {
        std::basic_string<CharT> text;
        CharT c = (CharT) alphabet[random() % alphabet.size()];
        for (size_t n = random() % 60; n > 0; n--) {
            if (random() % 3) { // runs of a character as well
                c = (CharT) alphabet[random() % alphabet.size()];
            }
            text.push_back(c);
        }
        std::vector<size_t> found;
        own.split(numbers(text), 0, text.size(), found);
        different += found != expected(text, regex);
    }
    return different;
}

int compare_groups(const std::string & pattern, const std::vector<uint32_t> & alphabet) {
    const std::regex regex(pattern);
    cyllama::linear_regex own(pattern);
    std::mt19937 random(1);
    int different = 0;
    for (int round = 0; round < 2000; round++) {
        std::string text;
        for (size_t n = random() % 12; n > 0; n--) {
            text.push_back((char) alphabet[random() % alphabet.size()]);
        }
        for (const bool whole : {false, true}) {
            std::smatch match;
            std::vector<std::pair<size_t, size_t>> found, wanted;
            const bool matches = whole ? std::regex_match(text, match, regex) : std::regex_search(text, match, regex);
            for (size_t i = 0; matches && i < match.size(); i++) {
                const size_t place = match.position(i);
                wanted.push_back(match[i].matched ? std::make_pair(place, place + match.length(i))
                                                  : std::make_pair(std::string::npos, std::string::npos));
            }
            different += own.find(text, whole, found) != matches || (matches && found != wanted);
        }
    }
    return different;
}

int main() {
    std::vector<uint32_t> narrow, wide;
    for (char c : std::string(" a'sStTrRevlLmMdDxAZ0129.,!?\n\r\t/-_$+<|(:>IGBCH\v")) {
        narrow.push_back(c);
        wide.push_back(c);
    }
    narrow.insert(narrow.end(), {0xD0, 0xD1, 0xD2, 0xD3, 0xD4, 0xD5});
    wide.insert(wide.end(), {0xE9, 0x3042, 0x4E00, 0x9FA5, 0xAC00, 0x3002, 0xFF0C, 0x2026, 0x0964, 0x10400});
    std::string kind;
    size_t n;
    for (int line = 1; std::cin >> kind >> n; line++) {
        std::vector<uint32_t> pattern(n);
        for (auto & c : pattern) {
            std::cin >> c;
        }
        const int different = kind == "groups"
            ? compare_groups(std::string(pattern.begin(), pattern.end()), {'a', 'b', 'c', 'A', '1', '_', ' ', '\n', '<', 0xE9})
            : kind == "narrow"
            ? compare(std::string(pattern.begin(), pattern.end()), narrow)
            : compare(std::wstring(pattern.begin(), pattern.end()), wide);
        if (different > 0) {
            std::cout << "expression " << line << ": " << different << " texts differ\n";
        }
    }
}
