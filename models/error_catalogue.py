"""Every error code: what happened, what to do, and how it is treated.

The table in docs/errors.md is generated from this one (`python tests/unit/test_readme.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import cohort_sync


@dataclass(frozen=True)
class Entry:
    """One code's row: its texts, and how it is treated wherever it comes up."""

    message: str
    remedy: str
    passing: bool = False  # terminal for the run, but the next one may succeed without a person
    spared: bool = False  # no failure of a run that nobody asked for: time alone helps
    step: str = "vendors"  # the step of `check` that it belongs to
    settings: tuple[str, ...] = ()  # in a configuration file, what it may be about: the first one given there
    http_status: int | None = None  # none: by the error's class


CATALOGUE: dict[str, Entry] = {
    # what was typed
    "NOT_FOUND": Entry(
        "There is no {kind} named {name!r}.", "List them with `cohort-sync {listing}`.", http_status=404
    ),
    "NAME_TAKEN": Entry(
        "A {kind} named {name!r} already exists.", "Choose another name, or use `update`.", http_status=400
    ),
    "NAME_INVALID": Entry(
        "{name!r} can't be a name.",
        "Use 1 to 100 characters without line breaks, and not digits alone (those are ids).",
        http_status=400,
    ),
    "IN_USE": Entry(
        "{kind} {name!r} is used by the bindings {used_by}.",
        "Remove those bindings first; nothing was changed.",
    ),
    "SUBDOMAIN_INVALID": Entry(
        "{value!r} is not a subdomain.",
        "Give the subdomain only, such as mc563885gzs27c5t9-63k636ttgm{hint}.",
        settings=("subdomain",),
    ),
    "ACCOUNT_ID_INVALID": Entry(
        "The business unit id (MID) must be a number.",
        "Copy the MID from Marketing Cloud's account menu.",
    ),
    "SETTING_INVALID": Entry("{field}: {value!r} is not valid.", "{hint}", http_status=400),
    "SETTINGS_INVALID": Entry(
        "{mistakes}.",
        "Correct them in the environment or the .env file; nothing was started or changed.",
        http_status=400,
    ),
    "SECRET_UNREADABLE": Entry(
        "The secret given by {reference} can't be read.",
        "Check the variable or file; nothing was changed.",
    ),
    "SECRET_INVISIBLE": Entry(
        "The secret given by {reference} has a character that nobody sees at position {position}.",
        "Copy it again, or type that place anew; nothing was changed.",
    ),
    "SECRET_IN_FILE": Entry(
        "{field} must be a reference such as env:NAME or file:PATH. Do not put the secret itself in this file.",
        "Put the secret in an environment variable or in a file of its own. If others could read this file, "
        "replace the secret.",
    ),
    "FILE_UNREADABLE": Entry(
        "{file} can't be read ({why}).",
        "Check the path, and that it is a text file in UTF-8.",
    ),
    "FILE_NOT_YAML": Entry(
        "This is not YAML: {why}.",
        "Correct that line; nothing was changed. Quote a value that begins with * or @, as a schedule may.",
    ),
    "FILE_REFUSED": Entry(
        "Mistakes in {file}: {count}. Nothing was changed.",
        "Correct them; each is listed with its line.",
    ),
    "CHECKS_FAILED": Entry(
        "Preconditions of {file} that are not met: {count}. Nothing was changed.",
        "Correct them; each is listed with its line. `--no-check` stores the file anyway.",
    ),
    "PLAN_OUTDATED": Entry(
        "Somebody changed the setup while the plan was being checked; nothing was applied.",
        "Look at the plan again: `cohort-sync apply {file} --dry-run`.",
    ),
    "PRUNE_UNCONFIRMED": Entry(
        "Not in {file}, and so to be removed: {names}. There is no terminal to confirm it on, so nothing was changed.",
        "Look at the plan with `--dry-run`, then repeat the command with `--yes`.",
    ),
    "UNCONFIRMED": Entry(
        "{doing} needs a yes; nobody could be asked, and nothing was changed.",
        "Repeat it with `--yes`, or on a terminal.",
    ),
    "VENDOR_UNASKED": Entry(
        "{vendor} could not be asked ({problem}: {why}), so nothing was stored.",
        "Try again later. `--no-check` stores it without asking.",
    ),
    "PORT_TAKEN": Entry(
        "{process} can't listen at {address} ({why}).",
        "End what listens there, or choose another port, by an option or by {setting}; 0 takes a free one.",
    ),
    "KEY_UNKNOWN": Entry("There is no setting named {key!r} here.", "{hint}"),
    "KEY_TWICE": Entry("{key!r} is given twice; the first is in line {first}.", "Keep one of the two."),
    "SETTING_MISSING": Entry("{field} is missing.", "{hint}", http_status=400),
    "SECRET_KEY_WRONG": Entry(
        "A stored secret can't be decrypted with the configured key.",
        "Set COHORT_SYNC_SECRET_KEY to the key it was stored with (old keys may follow it, comma separated), and "
        "start the process again; nothing was failed for it.",
    ),
    "SECRET_KEY_ALONE": Entry(
        "COHORT_SYNC_SECRET_KEY holds one key, so there is none to change to.",
        "Put the new key before the old one, comma separated, restart every process, and repeat this.",
    ),
    "CRON_INVALID": Entry("The schedule {cron!r} is not valid.", "{hint}"),
    "TIMEZONE_INVALID": Entry(
        "There is no time zone named {timezone!r}.",
        "Use an IANA name, such as Europe/Berlin or UTC.",
    ),
    "PLAN_ON_DEMAND_ONLY": Entry(
        "Source {source!r} is of the {tier} tier, whose cohorts sync on demand only; "
        "a cron schedule needs the Audiences tier.",
        "Start it manually (`cohort-sync run`), or set `cohort-sync source update {source} --tier audiences` "
        "if the project has it.",
        settings=("tier", "cron", "after"),
    ),
    "ATTRIBUTE_TAKEN": Entry(
        "The attribute {attribute!r} of destination {destination!r} already belongs to binding {binding!r}; "
        "two cohorts can't share one.",
        "Add a new field to the data extension and bind that one.",
        settings=("attribute",),
    ),
    "ATTRIBUTE_LOCKED": Entry(
        "Binding {binding!r} has synced to {attribute!r}; its {field} can't be changed any more.",
        "Copy the cohort in Amplitude, add a new field to the data extension, and bind the copy to it.",
    ),
    "MAPPING_LOCKED": Entry(
        "Destination {destination!r} has been synced to; its mapped property can't be changed any more.",
        "Add another destination for the new mapping.",
        settings=("contact-key-property",),
    ),
    "RUN_UNFINISHED": Entry(
        "Binding {binding!r} has an unfinished run ({run}, {state}).",
        "Wait for it, or cancel it with `cohort-sync cancel {run}`.",
    ),
    "RUN_STATE": Entry(
        "Run {run} is {state}; {action} needs another state.",
        "Look at it with `cohort-sync show {run}`.",
    ),
    "CHAIN_CYCLE": Entry(
        "Binding {binding!r} can't run after itself: {chain}.",
        "Let one of them run on a schedule of its own, or after another binding.",
    ),
    "CANCELLED": Entry(
        "The run was cancelled by a person.", "Start another with `cohort-sync run {binding}`."
    ),
    # Amplitude
    "AMPLITUDE_CREDENTIALS": Entry(
        "Amplitude refused the API key or the secret key of source {source!r}.",
        "Copy both again from the project's settings in Amplitude. For a source that is stored: "
        "`cohort-sync source update {source} --api-key - --secret-key -`.",
        step="Amplitude credentials",
    ),
    "AMPLITUDE_REGION": Entry(
        "Amplitude does not know the API key of source {source!r} in the region {region}.",
        "Check the key, or give the region that the project lives in with `--region`. For a source that is stored: "
        "`cohort-sync source update {source} --region default|eu`.",
        step="Amplitude credentials",
    ),
    "AMPLITUDE_FORBIDDEN": Entry(
        "Amplitude refused {call} to the keys of source {source!r}.",
        "Check that the keys are of this project and region ({region}), and that its plan has cohorts over the API.",
        step="Amplitude credentials",
    ),
    "AMPLITUDE_PROPERTY": Entry(
        "Amplitude does not know the mapped property {property!r}.",
        "Correct it at the destination: user_id, amplitude_id, or a user property as Amplitude spells it.",
        step="Amplitude",
    ),
    "COHORT_NOT_FOUND": Entry(
        "Amplitude has no cohort {cohort!r} in source {source!r}.",
        "List the ids with `cohort-sync source cohorts {source}`; an unpublished cohort is not listed.",
        step="cohort",
    ),
    "COHORT_ARCHIVED": Entry(
        "Cohort {cohort!r} is archived.", "Restore it in Amplitude, or remove the binding.", step="cohort"
    ),
    "COHORT_OF_GROUPS": Entry(
        "Cohort {cohort!r} holds groups ({group}), not users.",
        "Bind a cohort of users: groups have no contact key.",
        step="cohort",
    ),
    "COHORT_TOO_LARGE": Entry(
        "Cohort {cohort!r} has {size} members; Amplitude's download carries 2,000,000.",
        "Feed the binding by webhook, which has no such limit (docs/webhooks.md), or split the cohort.",
        step="cohort",
    ),
    "AMPLITUDE_RATE_LIMITED": Entry(
        "Amplitude's limit on requests is reached.",
        "Nothing: the run continues on its own.",
        step="Amplitude",
    ),
    "AMPLITUDE_QUOTA": Entry(
        "Source {source!r} has used its {quota:cohort download|cohort downloads} of this month.",
        "Wait for the first of the month (UTC), ask Amplitude for more, or feed bindings by webhook, which spends "
        "none (docs/webhooks.md). `cohort-sync run --force` requests one anyway.",
        step="downloads",
        spared=True,
    ),
    "QUOTA_FORECAST": Entry(
        "Source {source!r} would need {total:cohort download|cohort downloads} in {month}; its quota is {quota}. "
        "Scheduled runs past it are skipped.",
        "Something that fits: {advice}.",
    ),
    "AMPLITUDE_UNAVAILABLE": Entry(
        "Amplitude did not answer as it should.",
        "Nothing: the run retries on its own.",
        step="Amplitude",
    ),
    "AMPLITUDE_CONTRACT": Entry(
        "Amplitude's answer to {call} is outside its documented shape.",
        "Run again; if it repeats, report it with the run's id.",
        step="Amplitude",
    ),
    "SNAPSHOT_REQUEST_LOST": Entry(
        "The answer to the request that costs a download was lost, and a retry would cost another one.",
        "Run again, or wait for the next scheduled run.",
    ),
    "SNAPSHOT_DEADLINE": Entry(
        "Amplitude did not finish the cohort within {minutes:minute|minutes}.",
        "Run again later; a large cohort with properties may need several tries.",
    ),
    "SNAPSHOT_PENDING": Entry(
        "The snapshot for binding {binding!r} is not ready yet.",
        "Repeat the command with a longer `--wait-seconds`. The requested download continues meanwhile, and neither "
        "`plan` nor `cohort-sync run {binding}` requests another.",
    ),
    "SNAPSHOT_EXPIRED": Entry(
        "Amplitude keeps a requested cohort for seven days; this one is older.",
        "Run again; this requests it anew.",
    ),
    # a snapshot's file
    "SNAPSHOT_EMPTY": Entry(
        "The snapshot has no header line, so it is not a cohort file.",
        "An empty cohort still has a header. Run again, or check the file.",
    ),
    "SNAPSHOT_NOT_CSV": Entry("The snapshot is not a CSV file.", "Run again, or check the file."),
    "SNAPSHOT_TRUNCATED": Entry("The snapshot ends in the middle of a row.", "Run again, or check the file."),
    "SNAPSHOT_ENCODING": Entry("The snapshot is not UTF-8.", "Save the file as UTF-8 and run again."),
    "SNAPSHOT_COLUMN_MISSING": Entry(
        "The snapshot has no column for the mapped property {column!r}; it has {columns}.",
        "Check the property's spelling at the destination, or the file's header.",
    ),
    "SNAPSHOT_TOO_LARGE": Entry(
        "The snapshot is larger than {limit}.",
        "Split the cohort, or raise COHORT_SYNC_SNAPSHOT_MAX_BYTES if the size is right.",
    ),
    "KEY_TOO_LONG": Entry(
        "Too many of the {members} contact keys ({count}) are longer than the field Contact Key holds ({length}); the "
        "longest has {longest:character|characters}.",
        "Check that the right property is mapped, or lengthen the field in Marketing Cloud. "
        "COHORT_SYNC_LONG_KEY_PERCENT sets how many may be rejected instead.",
    ),
    # the cohort webhook
    "WEBHOOK_NO_MESSAGE": Entry(
        "Amplitude's webhook has not delivered cohort {cohort!r} for binding {binding!r} yet; nothing was changed.",
        "Set up the webhook and a new sync of the cohort in Amplitude (docs/webhooks.md; `cohort-sync source "
        "webhook {source}`), wait for its first sync, then run again.",
        spared=True,
    ),
    "WEBHOOK_INCOMPLETE": Entry(
        "What Amplitude's webhook delivered of cohort {cohort!r} for binding {binding!r} is not the whole cohort: it "
        "did not begin with it, or was restored from a copy and lacks what came since. Nothing was changed.",
        "`cohort-sync reconcile {binding}` makes a download the list's base. Above 2,000,000 members: "
        "`cohort-sync reconcile {binding} --new-sync`.",
    ),
    "WEBHOOK_UNPROVEN": Entry(
        "The first sync of cohort {cohort!r} can't be shown to be whole: the list of binding {binding!r} has "
        "{listed:member|members}, and Amplitude counts {size}.",
        "`cohort-sync reconcile {binding}` makes a download the list's base. Above 2,000,000 members: "
        "`cohort-sync reconcile {binding} --new-sync`.",
    ),
    "WEBHOOK_GAP": Entry(
        "Of the sync of cohort {cohort!r} at {at} {missing:message|messages} never came, so it failed: binding "
        "{binding!r} may keep who left since, or lack who entered.",
        "`cohort-sync reconcile {binding}` makes a download the list's base. Above 2,000,000 members: "
        "`cohort-sync reconcile {binding} --new-sync`.",
    ),
    "WEBHOOK_MESSAGE_REFUSED": Entry(
        "Of cohort {cohort!r}, {count:message was|messages were} refused ({answer}) and not delivered since: the list "
        "of binding {binding!r} lacks what was said.",
        "`cohort-sync reconcile {binding}` makes a download the list's base. Above 2,000,000 members: "
        "`cohort-sync reconcile {binding} --new-sync`.",
    ),
    "WEBHOOK_REPEATED": Entry(
        "The sync of cohort {cohort!r} at {at} repeated what the one before it had said, so that one failed: binding "
        "{binding!r} may keep who left in between.",
        "`cohort-sync reconcile {binding}` makes a download the list's base. Above 2,000,000 members: "
        "`cohort-sync reconcile {binding} --new-sync`.",
    ),
    "WEBHOOK_ONE_SECOND": Entry(
        "Two syncs of cohort {cohort!r} were computed in one second, {at}: which was the later one can't be known, and "
        "binding {binding!r} may be wrong about whoever both of them name.",
        "`cohort-sync reconcile {binding}` makes a download the list's base. Above 2,000,000 members: "
        "`cohort-sync reconcile {binding} --new-sync`.",
    ),
    "WEBHOOK_SIZE": Entry(
        "The list of binding {binding!r} has {listed:member|members}, and Amplitude counts {size} in cohort "
        "{cohort!r}.",
        "`cohort-sync reconcile {binding}` makes a download the list's base. Above 2,000,000 members: "
        "`cohort-sync reconcile {binding} --new-sync`.",
    ),
    "WEBHOOK_SYNC_FAILED": Entry(
        "Amplitude says that a sync of cohort {cohort!r} failed, {at}: binding {binding!r} lacks some or all of "
        "its changes.",
        "If no message of it came, nothing: Amplitude's next sync makes it good. If some came, the next sync does not "
        "take them back: `cohort-sync reconcile {binding}` makes a download the list's base. "
        "Above 2,000,000 members: `cohort-sync reconcile {binding} --new-sync`.",
    ),
    "WEBHOOK_UNANCHORED": Entry(
        "The download that is the base of the list of binding {binding!r} followed a sync of cohort {cohort!r} that "
        "had failed, so the sync at {at} says nothing of who changed twice in between.",
        "`cohort-sync reconcile {binding}` once more, after a sync that came whole. Above 2,000,000 members: "
        "`cohort-sync reconcile {binding} --new-sync`.",
    ),
    "WEBHOOK_SILENT": Entry(
        "Nothing has come from Amplitude's webhook about cohort {cohort!r} since {since}; binding {binding!r} "
        "stays as it was then.",
        "Look at the cohort's sync in Amplitude: its history says whether it failed or was disabled. Meanwhile "
        "`cohort-sync reconcile {binding}` takes a download.",
    ),
    "WEBHOOK_FORGOTTEN": Entry(
        "The message about cohort {cohort!r} was computed before its list was forgotten for a new sync.",
        "Nothing, if it is of the old sync: delete that one in Amplitude, and make a new one.",
    ),
    "RECONCILE_TOO_LARGE": Entry(
        "Cohort {cohort!r} has {size} members; a download carries no more than 2,000,000.",
        "`cohort-sync reconcile {binding} --new-sync` lets a new sync of Amplitude's begin the list.",
    ),
    "RECONCILE_FEED": Entry(
        "Binding {binding!r} is fed by download: every run of it begins with one.",
        "Run it: `cohort-sync run {binding}`.",
    ),
    "WEBHOOK_LIST_GONE": Entry(
        "What Amplitude's webhook delivered of cohort {cohort!r} was forgotten while the run was under way.",
        "Run again.",
    ),
    "WEBHOOK_FED": Entry(
        "Binding {binding!r} is fed by Amplitude's webhook; the next run would undo a file's changes.",
        "Feed it by download for that: `cohort-sync binding update {binding} --feed download`.",
    ),
    "WEBHOOK_COHORT_UNKNOWN": Entry(
        "No binding of this source is fed by webhook with cohort {cohort!r}.",
        "Bind it with `cohort-sync binding add --feed webhook`, or end its sync to this webhook in Amplitude.",
    ),
    "WEBHOOK_TOO_OLD": Entry(
        "The message about cohort {cohort!r} is more than a week old, and newer messages "
        "have already been merged, so it can't be applied.",
        "Nothing: Amplitude's sync fails, and its next one sends the change again.",
    ),
    # Marketing Cloud
    "MC_CREDENTIALS": Entry(
        "Marketing Cloud refused the client id or the client secret of destination {destination!r}.",
        "Copy both again, and check that the package is installed and enabled. For a destination that is stored: "
        "`cohort-sync destination update {destination} --client-secret -`. A client secret may expire after 180 days.",
        step="Marketing Cloud credentials",
    ),
    "MC_ACCOUNT": Entry(
        "The package of destination {destination!r} has no access to this business unit.",
        "Enable it under Access in Installed Packages, or correct --account-id.",
        step="business unit",
    ),
    "MC_BLOCKED": Entry(
        "Marketing Cloud blocks this account's requests for now.",
        "Nothing at first: the run continues on its own. If it lasts for hours, ask Salesforce support.",
        step="Marketing Cloud",
    ),
    "MC_SUBDOMAIN_UNKNOWN": Entry(
        "No Marketing Cloud tenant answers at the subdomain {subdomain!r}.",
        "Copy the subdomain from the package's authentication base URI.",
        step="subdomain",
    ),
    "MC_SCOPES": Entry(
        "The package lacks the scopes {missing}.",
        "Grant Audiences, Lists and Subscribers and Data Extensions, each Read and Write, to the installed "
        "package. Changed scopes take up to five minutes.",
        step="Marketing Cloud",
    ),
    "MC_FORBIDDEN": Entry(
        "Marketing Cloud does not permit {call}.",
        "{advice}",
        step="data extension",
    ),
    "MC_RATE_LIMITED": Entry(
        "Marketing Cloud's limit on requests is reached.",
        "Nothing: the run continues on its own.",
        step="Marketing Cloud",
    ),
    "MC_UNAVAILABLE": Entry(
        "Marketing Cloud did not answer as it should.",
        "Nothing: the run retries on its own.",
        step="Marketing Cloud",
    ),
    "MC_CONTRACT": Entry(
        "Marketing Cloud's answer to {call} is outside its documented shape.",
        "Run again; if it repeats, report it with the run's id.",
        step="Marketing Cloud",
    ),
    "MC_REJECTED": Entry(
        "Marketing Cloud refused the whole request {call}.",
        "Look at the data extension's fields with `cohort-sync check`, then run again.",
        step="Marketing Cloud",
    ),
    "MC_JOB_FAILED": Entry(
        "Marketing Cloud's job ended in an error.",
        "Nothing: the batch is sent again automatically.",
        step="Marketing Cloud",
        passing=True,  # Marketing Cloud gave a batch up again and again: no fault of the configuration
    ),
    "MC_JOB_DEADLINE": Entry(
        "A job of Marketing Cloud did not end within {minutes:minute|minutes}.",
        "Nothing: the batch is sent again automatically.",
        step="Marketing Cloud",
        passing=True,  # Marketing Cloud gave a batch up again and again: no fault of the configuration
    ),
    "SUBMISSION_UNCERTAIN": Entry(
        "The answer to an earlier submission was lost; Marketing Cloud may execute it until {until}.",
        "Nothing: the run continues then, so that the newer change is applied last.",
    ),
    "MC_ROWS_MOVED": Entry(
        "While the data extension was read, {unseen} of its {count} rows did not appear: rows moved between pages.",
        "Nothing: it is read again automatically. If this repeats, wait until nothing else writes to it.",
        step="Marketing Cloud",
    ),
    "VERIFY_DISTURBED": Entry(
        "A run of binding {binding!r} was active during the reading; it may have caused the differences.",
        "Repeat it when no run is due, or accept this with `--anyway`.",
    ),
    "MC_SYNC_UNAVAILABLE": Entry(
        "Marketing Cloud refuses synchronous rows for destination {destination!r}.",
        "Go back to asynchronous rows: `cohort-sync destination update {destination} --write-mode async`.",
        step="Marketing Cloud",
    ),
    "DATA_EXTENSION_MISSING": Entry(
        'There is no data extension named exactly "Amplitude Engage" in this business unit.',
        'Create it in Contact Builder with the single primary key "Contact Key"; or correct --account-id.',
        step="data extension",
    ),
    "DATA_EXTENSION_AMBIGUOUS": Entry(
        '{count} data extensions named "Amplitude Engage" are visible to this business unit.',
        "Keep one of them (shared ones count too), or set the account id of the unit that owns it.",
        step="data extension",
    ),
    "DATA_EXTENSION_FIELDS": Entry(
        "The data extension's fields can't be read from this business unit.",
        "If it is shared from another one, set that unit's MID: `cohort-sync destination update {destination} "
        "--account-id`.",
        step="data extension",
    ),
    "PRIMARY_KEY_WRONG": Entry(
        'The data extension\'s primary key must be one field named exactly "Contact Key"; it is {found}.',
        "Create the data extension again with that key only: a primary key can't be changed later.",
    ),
    "ATTRIBUTE_MISSING": Entry(
        "The data extension has no field {attribute!r} for binding {binding!r}.",
        'Add the field (Boolean, nullable) to "Amplitude Engage", or correct the binding\'s attribute.',
    ),
    "ATTRIBUTE_TYPE": Entry(
        "The field {attribute!r} has the type {type}; a flag must be Boolean, Text or Number.",
        "Add a Boolean field and bind that one.",
    ),
    "ATTRIBUTE_UNUSABLE": Entry(
        "The field {attribute!r} can't hold a flag: {reason}.",
        "Add a nullable Boolean field.",
    ),
    "REQUIRED_FIELDS": Entry(
        "The data extension has other required fields without a default: {fields}.",
        "Make them nullable or give them a default: new contacts can't be inserted otherwise.",
    ),
    # guards and our own machinery
    "REMOVAL_GUARD": Entry(
        "The run would remove {exited} of {members} members ({percent} %); binding {binding!r} allows "
        "{limit} % without approval.",
        "Look at the cohort, then `cohort-sync approve {run}` or `cohort-sync reject {run}`.",
    ),
    "EMPTY_GUARD": Entry(
        "The cohort came back empty, and {members:member is|members are} flagged.",
        "Look at the cohort, then `cohort-sync approve {run}` or `cohort-sync reject {run}`.",
    ),
    "GROWTH_GUARD": Entry(
        "The cohort has {members:member|members}, and {before} before; binding {binding!r} allows {limit} % more "
        "without a person.",
        "Look at the cohort, then `cohort-sync approve {run}` or `cohort-sync reject {run}`.",
    ),
    "FIRST_SYNC_GUARD": Entry(
        "The first sync would flag {members:contact|contacts}; binding {binding!r} allows {limit} without a person.",
        "Look at the cohort, then `cohort-sync approve {run}` or `cohort-sync reject {run}`.",
    ),
    "BLANK_GUARD": Entry(
        "{some} of the snapshot's {rows} rows have no contact key; binding {binding!r} allows {limit} % without "
        "a person.",
        "Look at the property that is mapped to Contact Key, then `cohort-sync approve {run}` or "
        "`cohort-sync reject {run}`.",
    ),
    "DUPLICATE_GUARD": Entry(
        "{some} of the snapshot's {rows} rows name a contact again; binding {binding!r} allows {limit} % without "
        "a person.",
        "Look at the property that is mapped to Contact Key, then `cohort-sync approve {run}` or "
        "`cohort-sync reject {run}`.",
    ),
    "DEVIATION_GUARD": Entry(
        "The cohort has {members:member|members}, and the median of the last {runs} runs is {usual}; binding "
        "{binding!r} allows {limit} % from it without a person.",
        "Look at the cohort, then `cohort-sync approve {run}` or `cohort-sync reject {run}`.",
    ),
    "SNAPSHOT_AGE_GUARD": Entry(
        "The snapshot was requested at {taken}, before the one that was pushed last ({newest}).",
        "`cohort-sync reject {run}`, then `cohort-sync run {binding}` for a newer one. If the older membership is "
        "meant, `cohort-sync approve {run}`.",
    ),
    "EXTENSION_GUARD": Entry(
        "The data extension is another one (id {now}) than the one that acknowledged the members (id {before}).",
        "If it was made anew, `cohort-sync reject {run}`, then `cohort-sync run {binding} --full`, which reads it "
        "first. If only its id has changed, `cohort-sync approve {run}`.",
    ),
    "HELD_EXPIRED": Entry(
        "Nobody decided about the held run in time; nothing was pushed.",
        "Look at the cohort, then start another with `cohort-sync run {binding}`.",
    ),
    "QUOTED_LINES_GUARD": Entry(
        "Quoted cells of the snapshot hold {lines} further lines, {like} of them shaped like rows; {rows} rows were "
        "read. The run would remove {exited} of {members} members.",
        "Look for a stray double quote in the file. If its cells are meant to hold lines, `cohort-sync approve "
        "{run}`; else `cohort-sync reject {run}`, correct the file and run again.",
    ),
    "ODD_KEYS_GUARD": Entry(
        "{odd} of the snapshot's {rows} rows have an odd key: a placeholder, a header again, a quotation mark, or "
        "characters that nobody sees. The run would remove {exited} of {members} members.",
        "Look at the examples with `cohort-sync show {run}` or `cohort-sync plan`, then `cohort-sync approve {run}` or "
        "`cohort-sync reject {run}`. COHORT_SYNC_ODD_KEY_PERCENT sets the limit.",
    ),
    "HELD_REJECTED": Entry(
        "A person rejected the held run; nothing was pushed.",
        "Start another with `cohort-sync run {binding}` when the cohort is right.",
    ),
    "OVERLAP_SKIPPED": Entry(
        "The previous run was still unfinished.",
        "Nothing. If it happens often, use a less frequent schedule.",
    ),
    "OCCURRENCES_MISSED": Entry(
        "Occurrences missed while no scheduler ran: {count}, the first at {since}.",
        "Nothing if the next occurrence is soon enough; otherwise `cohort-sync run {binding}`. To catch up in future: "
        "`cohort-sync binding update {binding} --catchup latest`, with a longer `--catchup-window`.",
    ),
    "BLACKOUT": Entry(
        "Nothing is pushed for binding {binding!r} until {until}, because of the binding's blackout.",
        "Nothing: the run continues then. To change it: `cohort-sync binding update {binding} --blackout`.",
    ),
    "SCHEDULER_SILENT": Entry(
        "No scheduler is running, though {count:binding has|bindings have} a schedule.",
        "Start the stack with `cohort-sync up`, or a scheduler with `cohort-sync scheduler`.",
    ),
    "SCHEDULER_BEHIND": Entry(
        "{count:binding is|bindings are} overdue, the first since {since}.",
        "Look at the scheduler's log; start one with `cohort-sync scheduler` if none runs.",
    ),
    "WORKERS_SILENT": Entry(
        "{count:run waits|runs wait} for a worker, the first since {since}, and no worker is active.",
        "Start the stack with `cohort-sync up`, or a worker with `cohort-sync worker`.",
    ),
    "WORKERS_BUSY": Entry(
        "{count:run waits|runs wait} for a worker, the first since {since}; {working:is|are} in progress.",
        "Nothing if it passes; otherwise start more workers, or raise COHORT_SYNC_WORKER_CONCURRENCY.",
    ),
    # what needs a person, beside the errors of runs: models/observability/alerts.py
    "RUN_UNCLAIMED": Entry(
        "Run {run} is queued, and no worker has claimed it.",
        "Start the stack with `cohort-sync up`, or a worker with `cohort-sync worker`.",
    ),
    "OVERDUE": Entry(
        "Binding {binding!r} was due at {since}, and no scheduler has created its run.",
        "Start the stack with `cohort-sync up`, or a scheduler with `cohort-sync scheduler`.",
    ),
    "PAUSED": Entry(
        "Binding {binding!r} is paused: {reason}.",
        "Run `cohort-sync binding resume {binding}` when it may continue.",
    ),
    "ROWS_REJECTED": Entry(
        "Marketing Cloud refused {rows:row|rows} of run {run}.",
        "Look at the reasons with `cohort-sync show {run}`; the next run tries them again.",
    ),
    "SECRET_AGE": Entry(
        "The client secret of destination {destination!r} is {days:day|days} old; it may expire after {limit}.",
        "Create a new one in the installed package, then `cohort-sync destination update {destination} "
        "--client-secret -`.",
    ),
    "NOTIFY_FAILED": Entry(
        "Notifications have not reached {channel} since {since}.",
        "Look with `cohort-sync notices --test`, then correct COHORT_SYNC_NOTIFY_URLS or what it names.",
    ),
    "LEASE_LOST": Entry("Another worker owns run {run} now.", "Nothing: that worker continues it."),
    "BROKER_UNREACHABLE": Entry(
        "The queue can't be used: its server does not answer, refuses us, is read-only or has no memory left.",
        "Start the stack with `cohort-sync up`, or check COHORT_SYNC_REDIS_URL. A run made meanwhile is not lost.",
        http_status=503,
    ),
    "BROKER_NEEDED": Entry(
        "The vendors could not be asked, so nothing was stored: asking needs the queue's server, which can't be used.",
        "Check COHORT_SYNC_REDIS_URL and that its server runs. `--no-check` stores it without asking.",
    ),
    "BROKER_CLUSTER": Entry(
        "The queue's server is one of a cluster, which Celery can't use.",
        "Give COHORT_SYNC_REDIS_URL a server without cluster mode, or one whose cluster mode is off.",
    ),
    "DATABASE_UNREACHABLE": Entry(
        "The database does not answer.",
        "Check COHORT_SYNC_DATABASE_URL and that the server runs.",
        http_status=503,
    ),
    "DATABASE_SCHEMA": Entry(
        "The database does not have this version's schema.",
        "Run `cohort-sync db upgrade`.",
        http_status=503,
    ),
    "DATABASE_NEWER": Entry(
        "A newer version of cohort-sync has upgraded the database; this one knows its schema up to {known}.",
        "Use that version, or restore the backup that was made before the upgrade.",
        http_status=503,
    ),
    "DATABASE_BUSY": Entry(
        "What this needs of the database at {place} was kept by others for too long; nothing was changed.",
        "Processes try again by themselves. Give a command once more; if it does not help, look for a long "
        "transaction that is not cohort-sync's own.",
        http_status=503,
    ),
    "DATABASE_FULL": Entry(
        "There is no room left for the database at {place}.",
        "Make room on that disk; what was being written was not stored, and is tried again.",
        http_status=503,
    ),
    "DATABASE_READ_ONLY": Entry(
        "The database at {place} can't be written to.",
        "Give the account that runs cohort-sync write access to the file and its directory, or point "
        "COHORT_SYNC_DATABASE_URL to a server that takes writes.",
        http_status=503,
    ),
    "DATABASE_DAMAGED": Entry(
        "The database at {place} is damaged, or is no database.",
        "Stop every process, keep a copy of the file with its -wal, and restore the last backup.",
        http_status=503,
    ),
    "DATABASE_NO_FILE": Entry(
        "The database at {place} can't be opened.",
        "Check that the directory exists and that the account that runs cohort-sync may read and write it.",
        http_status=503,
    ),
    "FILE_UNWRITABLE": Entry("{file} can't be written ({why}).", "Choose another place; nothing was copied."),
    "BACKUP_POSTGRESQL": Entry(
        "cohort-sync copies SQLite; this database is PostgreSQL, at {place}.",
        "Run `pg_dump --format=custom --file {file} {address}`. Keep the secret key too, elsewhere.",
    ),
    "RESTORE_POSTGRESQL": Entry(
        "cohort-sync restores SQLite; this database is PostgreSQL, at {place}.",
        "Stop every process, run `pg_restore --clean --if-exists --dbname {address} {file}`, then "
        "`cohort-sync restore --in-place` before anything is started again.",
    ),
    "BACKUP_INVALID": Entry(
        "{file} is no usable copy: {why}.",
        "Give a file that `cohort-sync backup` wrote; nothing was changed.",
    ),
    "STACK_RUNNING": Entry(
        "Processes of cohort-sync still use {place}.",
        "Stop `cohort-sync up` and every other process of cohort-sync on that database, then repeat this; nothing "
        "was changed.",
    ),
    "FORGET_PENDING": Entry(
        "Something of the contact is still needed: {left}. They are not stored anew.",
        "Repeat the command when that has ended; it goes on where it was.",
    ),
    "FORGET_UNCLEARED": Entry(
        "The contact's flag could not be set to false: {why}. Nothing of them was removed; they are not stored anew.",
        "Start the stack if none runs, look at that run, and repeat the command. `--flags left` removes the contact "
        "and leaves the flag as it is.",
    ),
    "NOT_FORGOTTEN": Entry(
        "The contact with this key is not forgotten.",
        "Look at `cohort-sync forget --list`; nothing was changed.",
    ),
    "RESTORED": Entry(
        "The run was under way when the copy was made that the database was restored from.",
        "Nothing: the next run reads the data extension first, and puts right what differs.",
    ),
    "ALREADY_RUNNING": Entry(
        "A stack is already running on this data directory (process {pid}).",
        "Use that one, or stop it first with `cohort-sync down`.",
    ),
    "STACK_STOPPED": Entry(
        "Nothing works on run {run}: for {seconds:second|seconds} no scheduler and no worker gave a sign of life.",
        "Start the stack with `cohort-sync up --detach`: the run goes on, and `cohort-sync watch {run}` follows it.",
    ),
    "LOG_MISSING": Entry(
        "There is no log at {path}: only a stack in the background writes one.",
        "Start it with `cohort-sync up --detach`. `up` alone writes to its terminal, and a service to the journal.",
    ),
    "NOT_OURS": Entry(
        "{what} belongs to another account.",
        "Repeat the command as that account.",
    ),
    cohort_sync.CODE: Entry(*cohort_sync.TEXTS),
    "DISK_FULL": Entry(
        "There is no room to write to {path} ({reason}; {free} bytes are free there).",
        "Make room there, or raise the quota of the user that runs cohort-sync. A run goes on by itself.",
    ),
    "PROCESS_SILENT": Entry(
        "A process of this machine is stuck, or has ended.",
        "Look at its log and start it again. `cohort-sync health` shows which one.",
    ),
    "WORKER_LOST": Entry(
        "The run was ended after {times:attempt|attempts} in a row: the last worker that had it ended without a word.",
        "Look at the workers' logs and at the system's (memory, disk) for why a worker ended, then run again.",
    ),
    "INTERNAL": Entry(
        "Something in cohort-sync itself went wrong ({kind}).",
        "Run again; if it repeats, report it with the run's id and its log.",
        http_status=500,
    ),
}
