import cronstrue from "cronstrue";

/**
 * A schedule in words: "At 09:00, Monday through Friday"; the schedule itself if cronstrue cannot
 * describe the line.
 */
export function scheduleText(schedule: string): string {
  if (schedule === "") return "Manual only";
  const [, kind, rest] = /^@(at|every)\s+(.*)$/i.exec(schedule) ?? [];
  if (kind?.toLowerCase() === "at") return `Once, at ${rest!.replace("T", " ")}`;
  if (kind) return `Every ${rest}`;
  try {
    return cronstrue.toString(schedule, { use24HourTimeFormat: true, verbose: false });
  } catch {
    return schedule;
  }
}
