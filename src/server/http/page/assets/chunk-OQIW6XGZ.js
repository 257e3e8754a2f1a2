<<<<<<<< HEAD:src/server/http/page/assets/chunk-ABHRKJ4C.js
import{i as o,j as r,k as n}from"./chunk-3VCAYUYQ.js";function p(t){let e=Math.floor(t/1e3);return r(n,{seconds:o.parse(e),nanos:(t-e*1e3)*1e6})}function i(t){return Number(t.seconds)*1e3+Math.round(t.nanos/1e6)}export{p as a,i as b};
========
import{i as o,j as r,k as n}from"./chunk-B4IWXYAO.js";function p(t){let e=Math.floor(t/1e3);return r(n,{seconds:o.parse(e),nanos:(t-e*1e3)*1e6})}function i(t){return Number(t.seconds)*1e3+Math.round(t.nanos/1e6)}export{p as a,i as b};
>>>>>>>> main:src/server/http/page/assets/chunk-OQIW6XGZ.js
