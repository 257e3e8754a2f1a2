/** What agents do, as it travels through the feed: an activity in bytes, small enough for one notification. */
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Activity, ActivitySchema } from "#gen/pinion/v1/activity_pb.js";
import { activityStreamsMin } from "../cluster/feed.ts";

/** Stands in the feed where output has its stream; OUTPUT_STREAM_… are smaller. */
export const activityStream = activityStreamsMin;

/** One notification carries so much. The transcript of the completion has more. */
const relayedBytesMax = 4_500;
/** What texts of a larger activity are cut to, in characters; two of them fit whatever they hold. */
const cutCharacters = 500;

/** The activity in bytes; texts of a large one are cut, and say so where the message can. */
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

/** Undefined: a piece of one that was too large for a notification all the same. */
export function activityOf(bytes: Uint8Array): Activity | undefined {
  try {
    return fromBinary(ActivitySchema, bytes);
  } catch {
    return undefined;
  }
}
