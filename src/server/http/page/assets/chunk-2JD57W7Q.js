<<<<<<<< HEAD:src/server/http/page/assets/chunk-LWPOAJKR.js
import{i as o,j as r,k as n}from"./chunk-UJG2BT6P.js";function p(t){let e=Math.floor(t/1e3);return r(n,{seconds:o.parse(e),nanos:(t-e*1e3)*1e6})}function i(t){return Number(t.seconds)*1e3+Math.round(t.nanos/1e6)}export{p as a,i as b};
========
import{i as o,j as r,k as n}from"./chunk-MLEEEFI6.js";function p(t){let e=Math.floor(t/1e3);return r(n,{seconds:o.parse(e),nanos:(t-e*1e3)*1e6})}function i(t){return Number(t.seconds)*1e3+Math.round(t.nanos/1e6)}export{p as a,i as b};
>>>>>>>> main:src/server/http/page/assets/chunk-2JD57W7Q.js
