import { durationMs } from "@bufbuild/protobuf/wkt";
import type { Run } from "#gen/pinion/v1/run_pb.js";
import { labelOf } from "../../data/devices.ts";
import { isEnded } from "../../data/run-stream.ts";
import { Ansi } from "../../parts/ansi.tsx";
import { type Fact, FactList } from "../../parts/fact-list.tsx";
import { Ago } from "../../parts/time.tsx";
import { linkTo } from "../../route.ts";
import { lengthText, momentText, msOf } from "../../times.ts";
import { usageText } from "../../usage-words.ts";
import { programText, skipWord, sourceWord } from "../../words.ts";

const moment = (at: Parameters<typeof msOf>[0]) => at && momentText(msOf(at));

/** The facts of a run that people may want to see. */
function factsOf(run: Run): Fact[] {
  return [
    ["reason", run.reason],
    ["skipped for", skipWord(run.skipReason)],
    [
      "device",
      run.deviceId ? <a href={linkTo("fleet", run.deviceId)}>{labelOf(run.deviceId)}</a> : "none yet",
    ],
    [
      "watcher",
      <a
        href={linkTo("watchers", run.watcherSlug || run.watcherId)}
      >{`${run.watcherSlug} v${run.watcherVersion}`}</a>,
    ],
    ["agent", run.agentId && `${run.agentId} v${run.agentVersion}`],
    ["executor", run.agentKind && <code>{run.agentKind}</code>],
    ["source", sourceWord(run.source)],
    ["attempt", run.attempt > 0 && `${run.attempt} of ${run.maxAttempts}`],
    ["slot", moment(run.scheduledFor)],
    ["not before", moment(run.notBefore)],
    ["expires", moment(run.startDeadlineAt)],
    ["last beat", run.lastBeatAt && !isEnded(run) && <Ago at={run.lastBeatAt} />],
    ["program ran", run.duration && lengthText(durationMs(run.duration))],
    ["timeout", run.timeout && lengthText(durationMs(run.timeout))],
    ["exit code", run.exitCode === undefined ? "" : String(run.exitCode)],
    ["signal", run.signal],
    ["window", run.windowStart && `${moment(run.windowStart)} to ${moment(run.windowEnd)}`],
    ["result", run.windowId && <code>{run.windowId}</code>],
    ["model", run.modelUsed],
    ["program", run.executor && programText(run.executor)],
    ["used", usageText(run.usage)],
    ["stopped by", run.stopReason],
    ["workspace", run.workspace],
    ["kept", run.keptWorkspace && <code>{run.keptWorkspace.path}</code>],
    ["retry of", run.retryOf && <a href={linkTo("runs", run.retryOf)}>{run.retryOf.slice(-8)}</a>],
  ];
}

export function Facts({ run }: { run: Run }) {
  return (
    <section aria-label="Details">
      <h2>Details</h2>
      <FactList facts={factsOf(run)} />
      {run.pastAttempts.length > 0 && (
        <>
          <h3>Attempts before this one</h3>
          <ol class="facts">
            {run.pastAttempts.map((past, index) => (
              <li key={index}>
                {past.attempt}: {past.isReported ? "reported" : "taken back"} {moment(past.endedAt)}:{" "}
                {past.reason}
                {past.outputTail && (
                  <pre tabIndex={0}>
                    <Ansi text={past.outputTail} />
                  </pre>
                )}
              </li>
            ))}
          </ol>
        </>
      )}
    </section>
  );
}
