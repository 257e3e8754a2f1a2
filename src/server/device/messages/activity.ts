/** Agents' activities in the feed: an activity as bytes, small enough for one notification. */
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  type Activity,
  ActivitySchema,
  type Transcript,
  TranscriptSchema,
} from "#gen/pinion/v1/activity_pb.js";
import { activityStreamsMin } from "../../cluster/output.ts";
import { withMoment } from "./moments.ts";

/** The stream number of activities in the feed; all values OUTPUT_STREAM_… are smaller. */
export const activityStream = activityStreamsMin;

/**
 * Maximum bytes of an activity in one notification. The completion's transcript has the whole
 * activity.
 */
const relayedBytesMax = 4_500;
/**
 * Texts of a larger activity are cut to this number of characters; any two such texts fit into a
 * notification.
 */
const cutCharacters = 500;

/**
 * The activity as bytes. Long texts are cut, and the message notes the cut if it has a field for
 * the note.
 */
export function activityBytes(activity: Activity): Uint8Array {
  const bytes = toBinary(ActivitySchema, activity);
  return bytes.length <= relayedBytesMax ? bytes : toBinary(ActivitySchema, cut(activity));
}

function cut(activity: Activity): Activity {
  const { body } = activity;
  switch (body.case) {
    case "text":
    case "thinking":
      return {
        ...activity,
        body: { ...body, value: { ...body.value, text: `${short(body.value.text)} …` } },
      };
    case "toolCall": {
      const { input, result } = body.value;
      const value = {
        ...body.value,
        ...{ input: short(input), result: short(result) },
        isInputTruncated: body.value.isInputTruncated || input.length > cutCharacters,
        isResultTruncated: body.value.isResultTruncated || result.length > cutCharacters,
      };
      return { ...activity, body: { ...body, value } };
    }
    case "plan": {
      const steps = body.value.steps.map((step) => ({ ...step, text: step.text.slice(0, 20) }));
      return { ...activity, body: { ...body, value: { ...body.value, steps } } };
    }
    default:
      return { ...activity, body: { case: undefined } };
  }
}

const short = (text: string) => text.slice(0, cutCharacters).toWellFormed();

/**
 * Decodes an activity; undefined for an incomplete activity that was too large for a notification
 * even after the cut.
 */
export function activityOf(bytes: Uint8Array): Activity | undefined {
  try {
    return withMoment(fromBinary(ActivitySchema, bytes), "at");
  } catch {
    return undefined;
  }
}

/** Decodes a transcript as it was stored. */
export function transcriptOf(bytes: Uint8Array): Transcript {
  const transcript = fromBinary(TranscriptSchema, bytes);
  for (const entry of transcript.entries) withMoment(entry, "at");
  return transcript;
}
