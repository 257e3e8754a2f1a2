import type { Command } from "commander";
import * as words from "../../print/words.ts";

/** Options of `watchers create` and `watchers update`; each sets a field of the spec. */
export type SpecOptions = {
  name?: string;
  prompt?: string;
  promptFile?: string;
  schedule?: string;
  at?: string;
  every?: string;
  zone?: string;
  device?: string;
  select?: string;
  spread?: string;
  group?: string;
  groupMax?: number;
  groupPer?: string;
  priority?: string;
  rate?: string;
  agent?: string;
  agentKind?: string;
  timeout?: string;
  attempts?: number;
  overlap?: string;
  catchup?: string;
  catchupWindow?: string;
  jitter?: string;
  cooldown?: string;
  startDeadline?: string;
  notify?: string;
  schema?: string;
  workspace?: string;
  runBudget?: string;
  dayBudget?: string;
  continue?: string;
  questionTimeout?: string;
  questionDefault?: string;
  questionResponders?: string;
  after?: string[];
  afterCondition?: string;
  redact?: string[];
  tell?: string[];
};

export function addSpecOptions(command: Command, wholeNumber: (text: string) => number): Command {
  addTask(command);
  addPlace(command, wholeNumber);
  addPolicies(command, wholeNumber);
  return addResults(command);
}

/** Options for what is done, and when. */
function addTask(command: Command): Command {
  return command
    .option("--name <text>", "shown to people")
    .option("--prompt <text>", "what the agent is asked to do")
    .option("--prompt-file <file>", 'the same from a file; "-" reads standard input')
    .option("--schedule <cron>", 'five fields, six with seconds first, or "@hourly"; "" for none')
    .option(
      "--at <moment>",
      "fires once: 2026-12-01T09:00 in the zone of the schedule, or with Z or an offset",
    )
    .option("--every <length>", 'fires that often: 90m, or "90m from 2026-12-01T09:00" for an anchor')
    .option("--zone <zone>", "IANA time zone of the schedule");
}

/** Options for where runs go, and with which agent. */
function addPlace(command: Command, wholeNumber: (text: string) => number): Command {
  return command
    .option("--device <device>", 'the device it is pinned to (id or label); "" lets fleet workers take it')
    .option(
      "--select <condition>",
      'in place of a device: a condition over os, arch and labels, \'os == "macos" && "gpu" in labels\'; "" for none',
    )
    .option("--spread <mode>", `on how many of the devices that match: ${words.spreadMode.all.join(" or ")}`)
    .option("--group <name>", 'its concurrency group: few runs of it are active at once; "" for none')
    .option("--group-max <n>", "so many of them (1)", wholeNumber)
    .option("--group-per <scope>", `counted per ${words.groupScope.all.join(" or ")}`)
    .option("--priority <n>", "among runs that wait for their place, -100 to 100; higher ones begin first")
    .option(
      "--rate <limit>",
      'its rate limit: a key and runs a minute, "anthropic=20", or the key alone; "" for none',
    )
    .option("--agent <agent>", "the agent; default: the org's default agent")
    .option(
      "--agent-kind <kind>",
      'the executor that is meant, for example claude-code; "" leaves it to the device',
    );
}

/** Options for how attempts, slots and delays are handled. */
function addPolicies(command: Command, wholeNumber: (text: string) => number): Command {
  return command
    .option("--timeout <length>", "how long one attempt may take, 1s to 7d")
    .option("--attempts <n>", "attempts per run, 1 to 20", wholeNumber)
    .option(
      "--overlap <policy>",
      `a slot is due while a run is active: ${words.overlapPolicy.all.join(" or ")}`,
    )
    .option("--catchup <policy>", `slots of a downtime: ${words.catchupPolicy.all.join(" or ")}`)
    .option("--catchup-window <length>", "slots older than this are missed, 1m to 30d")
    .option("--jitter <length>", "a stable delay up to this, 0s to 1h")
    .option("--cooldown <length>", "no scheduled run sooner than this after the last, 0s to 30d")
    .option("--start-deadline <length>", 'skip a run that has not started by then, 1s to 30d; "" for never');
}

/** Options for what becomes of a result, and what a run may use. */
function addResults(command: Command): Command {
  return command
    .option("--notify <when>", `a notification on the device's desktop: ${words.notification.all.join(", ")}`)
    .option(
      "--tell <destination=when>",
      `send results there: ${words.notifyWhen.all.join(", ")}; may be repeated; "" for nowhere`,
      (text: string, before?: string[]) => [...(before ?? []), text],
    )
    .option("--schema <file>", "JSON schema of the result that the agent is asked for")
    .option(
      "--workspace <name>",
      "the device's workspace to work in; \"\" for the agent's or the executor's own",
    )
    .option("--run-budget <budget>", "what one run may use: tokens, a cost, or both: 50000, $0.50")
    .option("--day-budget <budget>", "what its runs of a day (UTC) may use; slots are skipped beyond it")
    .option("--continue <mode>", `what a run begins with: ${words.continueMode.all.join(" or ")}`)
    .option("--question-timeout <length>", "how long its agent waits for an answer, 10s to 7d (10m)")
    .option(
      "--question-default <answer>",
      `taken when nobody answers: ${words.questionDefault.all.join(" or ")}`,
    )
    .option("--question-responders <who>", `who may answer: ${words.questionResponders.all.join(", ")}`)
    .option(
      "--after <watchers...>",
      'watchers (ids or slugs) whose ends start this one, with {run, result} as input; "" for none',
    )
    .option(
      "--after-condition <cel>",
      'which ends do: run.status == "completed" && result.structured.severity > 3; "" for completed ones',
    )
    .option(
      "--redact <paths...>",
      'dotted paths of an input that are never shown: commits.*.author; "" for none',
    );
}
