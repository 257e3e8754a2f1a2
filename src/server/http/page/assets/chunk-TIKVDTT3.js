import{Na as n}from"./chunk-I77PNB5B.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
