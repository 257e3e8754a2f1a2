import cronstrue from "cronstrue";

/** A cron line in words: "At 09:00, Monday through Friday". The line itself where cronstrue has no words for it. */
export function scheduleText(schedule: string): string {
  if (schedule === "") return "Manual only";
  try {
    return cronstrue.toString(schedule, { use24HourTimeFormat: true, verbose: false });
  } catch {
    return schedule;
  }
}
