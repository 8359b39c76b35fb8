/* Takes the host with the largest share of free memory.
 *
 * Every call runs in a fresh instance: globals are lost, and what is not freed is gone. There is no clock, no file and
 * no network; the instant and a seed come from `context`. What an export gives back is freed by the bindings, so all of
 * it is allocated; `..._string_dup` copies a literal. */

#include "bindings/placement_policy.h"

#include <stdlib.h>
#include <string.h>

typedef placement_policy_string_t text_t;
typedef exports_collective_policy_placement_choice_t choice_t;
typedef collective_policy_cluster_host_row_t row_t;

#define GIB (1ull << 30)
#define RETRY_AFTER_MS 10000
#define TEXT_BYTES_MAX 128

static const char SCHEMA[] =
    "{\"$schema\": \"https://json-schema.org/draft/2020-12/schema\", \"title\": \"{{name}}\", \"type\": \"object\","
    " \"additionalProperties\": false, \"properties\": {"
    "\"points\": {\"description\": \"What a host is worth whose memory is all free.\","
    " \"type\": \"number\", \"minimum\": 0, \"maximum\": 1000, \"default\": 100},"
    "\"candidates\": {\"description\": \"Hosts that are looked at: more choice, more time.\","
    " \"type\": \"integer\", \"minimum\": 1, \"maximum\": 20000, \"default\": 64}}}";

struct settings {
  double points;
  double candidates;
};

static void *allocate(size_t count, size_t size) {
  void *memory = calloc(count ? count : 1, size);
  if (!memory) __builtin_trap();
  return memory;
}

static const char *skip_space(const char *at) {
  while (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t') at++;
  return at;
}

/* A number as JSON has it, without an exponent; `at` moves behind it, and stays where none is. `strtod` would bring the
 * whole of stdio, and with it imports that no policy may have. */
static double parse_number(const char **at) {
  const char *next = *at;
  double value = 0, scale = 1;
  int negative = *next == '-';
  next += negative;
  if (*next < '0' || *next > '9') return 0;
  for (; *next >= '0' && *next <= '9'; next++) value = value * 10 + (*next - '0');
  if (*next == '.')
    for (next++; *next >= '0' && *next <= '9'; next++) value = value * 10 + (*next - '0'), scale *= 10;
  *at = next;
  return (negative ? -value : value) / scale;
}

/* A flat object whose values are numbers: all that these settings need. The first thing that is wrong is written to
 * `path` and `message`; both are null if all is well. */
static struct settings parse_settings(const text_t *given, const char **path, const char **message) {
  struct settings settings = {100, 64};
  *path = *message = NULL;
  char *text = allocate(given->len + 1, 1);
  memcpy(text, given->ptr, given->len);
  const char *at = skip_space(text);
  int first = 1;
  if (*at++ != '{') goto malformed;
  for (at = skip_space(at); *at != '}'; at = skip_space(at), first = 0) {
    if (!first) {
      if (*at++ != ',') goto malformed;
      at = skip_space(at);
    }
    if (*at++ != '"') goto malformed;
    const char *key = at;
    while (*at && *at != '"') at++;
    size_t key_len = (size_t)(at - key);
    if (*at++ != '"') goto malformed;
    at = skip_space(at);
    if (*at++ != ':') goto malformed;
    at = skip_space(at);
    const char *begin = at;
    double value = parse_number(&at);
    int number = at != begin;
    if (key_len == 6 && !memcmp(key, "points", 6)) {
      settings.points = value;
      if (!number || !(value >= 0 && value <= 1000)) {
        *path = "/points", *message = "give a number from 0 to 1000";
        return settings;
      }
    } else if (key_len == 10 && !memcmp(key, "candidates", 10)) {
      settings.candidates = value;
      if (!number || !(value >= 1 && value <= 20000) || value != (double)(uint32_t)value) {
        *path = "/candidates", *message = "give 1 to 20000 hosts";
        return settings;
      }
    } else {
      *path = "", *message = "there are the settings points and candidates and no others";
      return settings;
    }
  }
  if (*skip_space(at + 1) == '\0') return settings;
malformed:
  *path = "", *message = "write an object such as {\"points\": 100}";
  return settings;
}

void exports_collective_policy_plugin_describe(exports_collective_policy_plugin_manifest_t *ret) {
  placement_policy_string_dup(&ret->name, "{{name}}");
  placement_policy_string_dup(&ret->version, "0.1.0");
  placement_policy_string_dup(&ret->summary, "What this policy does, in one sentence.");
  placement_policy_string_dup(&ret->license, "Apache-2.0");
  placement_policy_string_dup(&ret->settings_schema, SCHEMA);
  placement_policy_string_dup(&ret->default_settings, "{}");
}

bool exports_collective_policy_plugin_validate_settings(placement_policy_string_t *settings,
                                                        exports_collective_policy_plugin_list_settings_issue_t *err) {
  const char *path, *message;
  parse_settings(settings, &path, &message);
  if (!message) return true;
  err->len = 1;
  err->ptr = allocate(1, sizeof *err->ptr);
  placement_policy_string_dup(&err->ptr->path, path);
  placement_policy_string_dup(&err->ptr->message, message);
  return false;
}

static char *append(char *at, const char *text) {
  size_t len = strlen(text);
  memcpy(at, text, len);
  return at + len;
}

static char *append_number(char *at, uint64_t number) {
  char digits[20];
  size_t count = 0;
  do digits[count++] = (char)('0' + number % 10);
  while (number /= 10);
  while (count) *at++ = digits[--count];
  return at;
}

static void one_reason(exports_collective_policy_placement_list_reason_t *list, const char *code, const char *text,
                       size_t len, double weight) {
  list->len = 1;
  list->ptr = allocate(1, sizeof *list->ptr);
  placement_policy_string_dup(&list->ptr->code, code);
  placement_policy_string_dup_n(&list->ptr->text, text, len);
  list->ptr->weight = weight;
}

static uint64_t left(const row_t *row, uint64_t memory_bytes) {
  return row->memory_free_bytes > memory_bytes ? row->memory_free_bytes - memory_bytes : 0;
}

/* Ties go to the host that is first by name, so that the same question has one answer. */
static int best_first(const void *one, const void *other) {
  const choice_t *a = one, *b = other;
  if (a->score != b->score) return a->score > b->score ? -1 : 1;
  return a->host < b->host ? -1 : a->host > b->host;
}

static void explain(choice_t *choice, const row_t *row, uint64_t memory_bytes) {
  char text[TEXT_BYTES_MAX], *at = text;
  at = append_number(at, left(row, memory_bytes) / GIB);
  at = append(at, " of ");
  at = append_number(at, row->memory_total_bytes / GIB);
  at = append(at, " GiB of memory stay free");
  one_reason(&choice->reasons, "memory-left", text, (size_t)(at - text), choice->score);
}

bool exports_collective_policy_placement_place(exports_collective_policy_placement_request_t *request,
                                               exports_collective_policy_placement_verdict_t *ret,
                                               exports_collective_policy_placement_policy_error_t *err) {
  text_t given;
  const char *path, *message;
  collective_policy_context_settings(&given);
  struct settings settings = parse_settings(&given, &path, &message);
  if (message) {
    err->tag = COLLECTIVE_POLICY_TYPES_POLICY_ERROR_BAD_SETTINGS;
    placement_policy_string_dup(&err->val.bad_settings, message);
    return false;
  }
  /* Hosts that meet every hard limit, found natively: at most so many, whichever the call's seed picks. */
  collective_policy_cluster_list_host_index_t hosts;
  collective_policy_cluster_feasible((uint32_t)settings.candidates, &hosts);
  memset(ret, 0, sizeof *ret);
  if (hosts.len == 0) {
    static const char text[] = "no host has room for it";
    ret->tag = EXPORTS_COLLECTIVE_POLICY_PLACEMENT_VERDICT_DEFER;
    ret->val.defer.retry_after = RETRY_AFTER_MS;
    one_reason(&ret->val.defer.reasons, "no-host-fits", text, sizeof text - 1, 0);
    return true;
  }
  collective_policy_cluster_list_host_row_t rows;
  collective_policy_cluster_rows(&hosts, &rows);
  choice_t *choices = allocate(rows.len, sizeof *choices);
  for (size_t i = 0; i < rows.len; i++) {
    const row_t *row = &rows.ptr[i];
    double share = row->memory_total_bytes ? (double)left(row, request->memory_bytes) / (double)row->memory_total_bytes : 0;
    choices[i].host = row->host;
    choices[i].score = settings.points * share;
  }
  qsort(choices, rows.len, sizeof *choices, best_first);
  size_t count = rows.len < request->choices_max ? rows.len : request->choices_max;
  for (size_t i = 0; i < count; i++) {
    const row_t *row = rows.ptr;
    while (row->host != choices[i].host) row++;
    explain(&choices[i], row, request->memory_bytes);
  }
  ret->tag = EXPORTS_COLLECTIVE_POLICY_PLACEMENT_VERDICT_PLACE;
  ret->val.place.choices.ptr = choices;
  ret->val.place.choices.len = count;
  return true;
}
