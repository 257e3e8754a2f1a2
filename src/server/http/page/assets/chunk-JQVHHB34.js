import{ya as n}from"./chunk-GPMPJ6HI.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
