/** Whether long tests run as well: `npm run test:long`. */
export const isLong = process.env.PINION_TEST_LONG === "1";
